"""How a question asks and answers: choices, predictions, functions, orders, explorers."""
