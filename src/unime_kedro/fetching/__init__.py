"""Published data: where they are, how they come here whole, and whether what lies here is all of them."""
