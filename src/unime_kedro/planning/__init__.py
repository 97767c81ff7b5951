"""What a run would do and cost, before it is paid for: counts, tokens, operations, hours and money, with intervals."""
