"""What was measured: the monitor's samples, a load run, its file. Data only."""
