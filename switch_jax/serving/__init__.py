"""A model as a program that runs without switch_jax.

export   writes the program, its parameters and its tokenizer to a folder
serve    the script that goes with them
"""
