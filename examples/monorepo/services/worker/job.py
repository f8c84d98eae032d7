def work(number: int) -> int:
    """How many steps it takes from `number` to 1, halving what is even and tripling (plus one) what is odd."""
    steps = 0
    while number != 1:
        number = number // 2 if number % 2 == 0 else 3 * number + 1
        steps += 1
    return steps
