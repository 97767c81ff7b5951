"""How good the mining is: ranking measures, and mini-MMEB's known truth.

Arrays and tables in, numbers out. Nothing here knows of Kedro, MLflow, DVC or torch.
"""
