"""From ranges to fewer bits: recipes, and what runs by them.

| module | what |
|---|---|
| `specs` | how one value is rounded: `QParams`, or `Dynamic` |
| `recipe` | `Recipe`: what is rounded at which site |
| `recipe_file` | recipes as JSON |
| `calibrated` | recipes from ranges |
| `resolved` | a recipe laid on a program |
| `simulate` | running a program with rounded values |
| `array` | values as codes: `QuantizedArray` |
| `products` | matrix products and convolutions of codes |
| `executable` | which products can be computed on codes |
| `weights` | which inputs can be codes from the start |
| `execution` | what is done where, and why |
| `execute` | `jr.quantize`: running a program on codes |
"""
