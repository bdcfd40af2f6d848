"""How well predictions agree with what people say; values in, values out."""
