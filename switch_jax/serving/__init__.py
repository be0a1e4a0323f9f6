"""A model as a program that runs without switch_jax.

program  the function that is exported
export   writes the program, its parameters and its tokenizer to a folder
serve    the script that goes with them
"""
