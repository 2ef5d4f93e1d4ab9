"""What a reader sees of the trained models: the leaderboard, its figures and the page that holds both."""
