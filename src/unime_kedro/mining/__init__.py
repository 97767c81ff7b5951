"""Mining of hard negatives: retrieval, judge scores, false-negative filters, sampling. Tables in, tables out."""
