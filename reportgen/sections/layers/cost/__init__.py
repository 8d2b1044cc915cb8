"""What an operator costs: FLOPs, bytes moved, and the time both take at a GPU's rated speed."""
