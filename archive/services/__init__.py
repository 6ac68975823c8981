"""What the archive does, one verb a module, whoever asks and by whatever protocol."""
