"""Makers of mammography machines, as they are called outside a site."""

VENDORS = (
    "agfa",
    "canon",
    "carestream",
    "fujifilm",
    "ge",
    "hologic",
    "ims-giotto",
    "konica",
    "philips",
    "planmed",
    "siemens",
    "other",
)
"""Every word of ``dicom.deidentify.vendor_of``, which this layer may not import; a test holds the two together."""
