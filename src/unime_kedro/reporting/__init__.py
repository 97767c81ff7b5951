"""The report: figures, tables and cases from saved results, and the page that shows them. No models, no Kedro."""
