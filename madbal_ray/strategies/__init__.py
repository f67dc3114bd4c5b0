"""What a strategy is: a pixel score, the network parts it needs, and a selector."""
