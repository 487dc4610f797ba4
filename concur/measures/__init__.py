"""What is made of the signals: rates, estimates, who is resident, how much work."""
