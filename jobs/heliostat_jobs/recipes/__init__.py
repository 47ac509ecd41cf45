"""Training programs that come with the wheel. Each runs by hand under plain Ray and unchanged inside a lease."""
