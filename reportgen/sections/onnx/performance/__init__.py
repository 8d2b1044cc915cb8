"""What a clock says of the file on this machine."""
