"""What a picture or a video is made into."""
