"""The dashboard: watches and steers runs through their run directories. Never imports torch or the engine."""
