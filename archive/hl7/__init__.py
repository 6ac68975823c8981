"""HL7 v2 over MLLP: orders, patient updates and schedules come in here.

Rules that hold in this package: framing, acknowledgement and what a message means to us are ours, taking a message
apart is the library's (``hl7``), which only ``message`` touches; services are called with plain values.
"""
