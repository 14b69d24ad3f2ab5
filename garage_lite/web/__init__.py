"""How requests come in: S3 today; K2V, websites, admin and console are doors of their own."""
