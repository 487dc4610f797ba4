"""SGLang's scheduler on its radix tree, step by step."""
