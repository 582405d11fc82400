"""From a PACS's DICOM file to a training image: read, choose, window, orient, crop, resize. No torch, no network."""
