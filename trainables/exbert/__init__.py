"""ExBERT: DistilBERT blocks and an ST-MoE layer."""
