"""What every room uses: errors, fields of configs, words for numbers, what a terminal shows."""
