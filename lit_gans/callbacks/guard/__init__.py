"""What the guard's callbacks share: players, measurements, the health log, snapshots and recovery."""
