"""The recipe that fashion_ten_minutes.py and fashion_ten_minutes_torch.py share: a net and its numbers."""

MINUTES = 10
EPOCHS = 16  # gapless's; on two undisturbed cores they take less than the ten minutes
BATCH = 128
SIZE, CLASSES, VALIDATION = 28, 10, 0.1

STEM = 32
WIDTHS = (48, 96, 192)  # a stage each: convolution, 2x2 pooling, and a residual convolution

LR, MOMENTUM, WEIGHT_DECAY = 0.15, 0.9, 5e-4  # Nesterov; no decay on norm and bias
RISE, FIRST_DIVISOR, LAST_DIVISOR = 0.2, 25.0, 1e4  # OneCycle, linear
SMOOTHING = 0.1
EMA = 0.995
PADDING = 2  # of the random crop; and a flip
MEAN, STD = 0.286, 0.353  # of the training pixels
