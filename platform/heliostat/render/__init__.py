"""What people see: plain aligned text for terminals and pipes, HTML cards for notebooks, rich panels where somebody asks.

Everything here is a function from the API's JSON (and the present time, an argument) to text. Nothing fetches, nothing prints.
"""
