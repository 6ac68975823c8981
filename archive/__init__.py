"""A DIMSE network archive: durable storage, query, retrieve and routing of DICOM objects."""

__version__ = "0.1.0"
