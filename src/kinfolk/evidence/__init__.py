"""Evidence: arms, opponents, the nested procedure, the verdict."""
