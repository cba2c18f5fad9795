"""Training with dlc alone: a model, a loader, an optimiser, a loop; every number computed by generated kernels."""

from __future__ import annotations

import dlc
from dlc import checkpoint, nn, optim
from dlc.data import Loader, load_digits
from dlc.train import evaluate, fit


def main(epochs: int = 15, path: str = "digits.safetensors", progress: bool | None = None) -> float:
    digits = load_digits()
    images, labels = digits.train_images.reshape(-1, 64), digits.train_labels
    training = Loader(images[288:], labels[288:], batch_size=64, shuffle=True, drop_last=True)
    validation = Loader(images[:288], labels[:288], batch_size=288)

    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10))
    optimizer = optim.AdamW(model.parameters(), lr=3e-3)
    schedule = optim.CosineLR(optimizer, epochs * len(training))
    with dlc.Watch() as watch:
        history = fit(model, optimizer, training, validation, epochs, schedule=schedule, progress=progress)
    checkpoint.save(path, model, optimizer, {"best epoch": history.best})

    _, accuracy = evaluate(model, Loader(digits.test_images.reshape(-1, 64), digits.test_labels, batch_size=360))
    print(f"validation {max(history.accuracy):.1%}, test {accuracy:.1%}; launches {dict(watch.counts.launches)}, torch "
          f"computed {dict(watch.torch_ops)}")
    return accuracy


if __name__ == "__main__":
    main()
