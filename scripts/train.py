"""Train or validate: ``python scripts/train.py fit --config configs/univnet_c16.yaml --data.root DIR``."""

from univnet.cli import main

if __name__ == "__main__":
    main()
