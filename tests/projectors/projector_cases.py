"""What several tests of projectors share."""

import projectors

DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
GRAY = projectors.Preprocessing((0.3,), (0.4,))
