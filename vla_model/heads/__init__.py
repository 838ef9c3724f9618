"""What is predicted from the decoder's hidden states: actions, values, places and states to come."""
