"""V-DB: the plain DistilBERT question answerer."""
