"""Adapters of a frozen DistilBERT, plain and in mixtures: (IA)3, LoRA, MoV, MoLoRA."""
