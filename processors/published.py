"""Published numbers, with the experiment and the scale they belong to.

Numbers as printed, in the unit of `Published.unit`; spreads where the papers give one.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from processors.presets import plain_source
from zoo import fitted_by


@dataclass(frozen=True)
class Published:
    """One number of a paper.

    Attributes:
        value, spread: as printed; the spread is over seeds.
        scale: networks and updates it was trained with.
        where: paper and table.
    """

    value: float
    spread: float | None
    scale: str
    where: str

    def __str__(self) -> str:
        spread = "" if self.spread is None else f" ± {self.spread:g}"
        return f"{self.value:g}{spread}"


@dataclass(frozen=True)
class Table:
    """A table of a paper, as far as it concerns one task on one kind of zoo.

    Attributes:
        experiment: as the papers' experiments are numbered.
        task, recipe, source: of the runs it is set beside; None means any.
        options, fields: that such runs, and the recipe of their zoo, must have, as in their
            `config.json`.
        metric, factor: of our summary, and what turns it into the paper's unit.
        values: number and spread by row: a model, with what was changed of it; none where the
            paper has a plot alone.
        of, varies: a model, and the names of its sizes and options that the table is about; runs
            of that model which change one of them stand beside it, and no others.
    """

    experiment: str
    task: str
    recipe: str | None
    source: str | None
    metric: str
    factor: float
    unit: str
    scale: str
    where: str
    values: dict[str, tuple[float, float | None]]
    options: tuple[tuple[str, Any], ...] = ()
    fields: tuple[tuple[str, Any], ...] = ()
    of: str = ""
    varies: tuple[str, ...] = ()

    @property
    def networks(self) -> int | None:
        """How many networks (or pictures, one network each) were trained on, as `scale` says."""
        found = re.match(r"([\d,]+) (networks|pictures)", self.scale)
        return int(found[1].replace(",", "")) if found else None

    def varied(self, config: Mapping[str, Any]) -> bool:
        """Whether a run changes what the table is about."""
        asked = {**config["sizes"], **config["options"]}
        return config["model"] == self.of and not asked.keys().isdisjoint(self.varies)

    def published(self, row: str) -> Published:
        """The number of a row."""
        value, spread = self.values[row]
        return Published(value, spread, self.scale, self.where)

    def fits(self, config: Mapping[str, Any]) -> bool:
        """Whether a run stands beside it; `config` is its `config.json`."""
        # Rows that were selected are of the recipe that fitted them.
        recipe = fitted_by(config["recipe"])
        return (
            self.task == config["task"]
            and self.recipe in (None, recipe.get("name"))
            and self.source in (None, plain_source(config["source"]))
            and all(config["task_options"].get(name) == value for name, value in self.options)
            and all(recipe.get(name) == value for name, value in self.fields)
        )


_DWS, _NFN, _MONOMIAL = "Navon et al. 2023", "Zhou et al. 2023", "Tran et al. 2024"
_INRS = "55,000 networks, 100 epochs"
_NFNS = "45,000 networks of recipe nfn, 50,000 updates"
# Of systems that came later, whose length of training we do not know.
_LATER = "55,000 networks"
TABLES = (
    Table(
        "D1", "regress", "sine-regression", "sine", "mse", 1, "MSE of the frequency",
        "800 networks, 100 epochs", f"{_DWS}, Figure 3: a plot", {},
    ),
    Table(
        "D2", "classify", "dws", "mnist", "accuracy", 100, "accuracy, %", _INRS,
        f"{_DWS}, Table 1",
        {
            "mlp": (17.55, 0.01), "mlp-aug": (29.26, 0.18), "mlp-align": (58.98, 0.52),
            "inr2vec": (23.69, 0.10), "transformer": (26.57, 0.18), "dws": (85.71, 0.57),
        },
    ),
    Table(
        "D2", "classify", "dws", "fashion-mnist", "accuracy", 100, "accuracy, %", _INRS,
        f"{_DWS}, Table 1",
        {
            "mlp": (19.91, 0.47), "mlp-aug": (22.76, 0.13), "mlp-align": (47.79, 1.03),
            "inr2vec": (22.33, 0.41), "transformer": (26.97, 0.33), "dws": (67.06, 0.29),
        },
    ),
    Table(
        "D2", "classify", "dws", "mnist", "accuracy", 100, "accuracy, %", _LATER,
        "Kofinas et al. 2024", {"NG-GNN": (91.40, None)},
    ),
    Table(
        "D2", "classify", "dws", "fashion-mnist", "accuracy", 100, "accuracy, %", _LATER,
        "Kofinas et al. 2024", {"NG-GNN": (68.00, None)},
    ),
    Table(
        "D2", "classify", "dws", "mnist", "accuracy", 100, "accuracy, %", _LATER,
        "Kalogeropoulos et al. 2024", {"ScaleGMN": (96.6, None)},
    ),
    Table(
        "D2", "classify", "dws", "fashion-mnist", "accuracy", 100, "accuracy, %", _LATER,
        "Kalogeropoulos et al. 2024", {"ScaleGMN": (80.8, None)},
    ),
    Table(
        "D2", "classify", "dws", "mnist", "accuracy", 100, "accuracy, %", _LATER,
        "Kahana et al. 2025", {"ProbeGen": (98.4, None)},
    ),
    Table(
        "D2", "classify", "dws", "fashion-mnist", "accuracy", 100, "accuracy, %", _LATER,
        "Kahana et al. 2025", {"ProbeGen": (87.7, None)},
    ),
    Table(
        "D5", "classify", "dws", "fashion-mnist", "accuracy", 100, "accuracy, %",
        "55,000 pictures, 100 epochs", f"{_DWS}, Table 4",
        {
            "dws, 1 view": (67.06, None), "dws, 2 views": (70.22, None),
            "dws, 4 views": (70.31, None), "dws, 6 views": (73.32, None),
            "dws, 8 views": (74.87, None), "dws, 10 views": (75.12, None),
        },
    ),
    Table(
        "D7", "classify", "dws", "mnist", "accuracy", 100, "accuracy, %", _INRS,
        f"{_DWS}, Table 10",
        {
            "dws blocks=b2b": (65.87, None), "dws blocks=w2w": (84.75, None),
            "dws blocks=both": (85.23, None), "dws blocks=diagonal": (85.68, None),
            "dws blocks=all": (85.71, None),
        },
        of="dws", varies=("blocks",),
    ),
    Table(
        "D8", "classify", "dws", "mnist", "accuracy", 100, "accuracy, %", _INRS,
        f"{_DWS}, Table 11",
        {
            "dws norm=false augment=none": (77.20, None), "dws norm=false": (80.20, None),
            "dws augment=none": (83.05, None), "dws norm=true": (85.71, None),
        },
        of="dws", varies=("norm", "augment"),
    ),
    Table(
        "D3", "ssl", "sine-ssl", "sine", "mse", 1, "MSE of a linear probe",
        "4,000 networks, 500 epochs", f"{_DWS}, Table 2",
        {
            "mlp": (7.39, 0.19), "mlp-aug": (5.65, 0.01), "mlp-align": (4.47, 0.15),
            "inr2vec": (3.86, 0.32), "transformer": (5.11, 0.12), "dws": (1.39, 0.06),
        },
    ),
    Table(
        "D4", "adapt", "binary", None, "accuracy", 100, "accuracy after, %",
        "4,000 networks, 10,000 updates", f"{_DWS}, Table 3",
        {
            "mlp": (64.33, 0.36), "mlp-aug": (64.69, 0.56), "mlp-align": (67.66, 0.90),
            "inr2vec": (65.69, 0.41), "transformer": (61.37, 0.13), "dws": (71.36, 0.38),
        },
    ),
    Table(
        "D6", "generalize", "fashion", "fashion-mnist", "mse_x100", 1, "100 x MSE of the accuracy",
        "150 runs, 15 epochs", f"{_DWS}, Figure 7: a plot", {},
    ),
    Table(
        "N2", "classify", "nfn", "mnist", "accuracy", 100, "accuracy, %",
        "450,000 networks, 200,000 updates", f"{_NFN}, Table 3",
        {
            "nfn-np": (92.9, 0.218), "nfn-hnp": (92.5, 0.071), "dws": (74.4, 0.143),
            "mlp": (14.5, 0.035), "mlp-aug": (21.0, 0.172),
        },
    ),
    Table(
        "N2", "classify", "nfn", "fashion-mnist", "accuracy", 100, "accuracy, %",
        "450,000 networks, 200,000 updates", f"{_NFN}, Table 3",
        {
            "nfn-np": (75.6, 1.07), "nfn-hnp": (72.7, 1.53), "dws": (64.8, 0.685),
            "mlp": (12.5, 0.111), "mlp-aug": (15.9, 0.181),
        },
    ),
    Table(
        "N2", "classify", "nfn", "cifar10", "accuracy", 100, "accuracy, %",
        "900,000 networks, 200,000 updates", f"{_NFN}, Table 3",
        {
            "nfn-np": (46.6, 0.072), "nfn-hnp": (44.1, 0.471), "dws": (41.5, 0.431),
            "mlp": (16.9, 0.25), "mlp-aug": (18.9, 0.432),
        },
    ),
    Table(
        "N3", "classify", "udf", None, "accuracy", 100, "accuracy, %",
        "ten classes, 200,000 updates; other shapes than these", f"{_NFN}, App. D.3",
        {
            "nfn-np, ShapeNet-10": (88.7, None), "nfn-hnp, ShapeNet-10": (86.9, None),
            "nfn-np, ScanNet-10": (65.9, None), "nfn-hnp, ScanNet-10": (64.1, None),
        },
    ),
    Table(
        "N5", "edit", None, "mnist", "mse", 1, "MSE on [-1, 1]",
        _NFNS, f"{_NFN}, Table 6 (dilate)",
        {
            "nfn-np": (0.068, None), "nfn-hnp": (0.070, None), "nfn-pt": (0.197, None),
            "mlp": (0.306, None), "mlp-aug": (0.307, None),
        },
        options=(("edit", "dilate"),),
    ),
    Table(
        "N5", "edit", None, "cifar10", "mse", 1, "MSE on [-1, 1]",
        _NFNS, f"{_NFN}, Table 6 (contrast)",
        {
            "nfn-np": (0.020, None), "nfn-hnp": (0.021, None), "nfn-pt": (0.029, None),
            "mlp": (0.031, None), "mlp-aug": (0.029, None),
        },
        options=(("edit", "contrast"),),
    ),
    Table(
        "M3", "classify", "nfn", "mnist", "accuracy", 100, "accuracy, %",
        "45,000 networks, 200,000 updates", f"{_MONOMIAL}, Table 3",
        {
            "monomial": (68.43, None), "nfn-np, one copy": (69.82, None),
            "nfn-hnp, one copy": (66.02, None),
        },
    ),
    Table(
        "N6", "classify", "nfn", "mnist", "accuracy", 100, "accuracy, %",
        "450,000 networks, 200,000 updates", f"{_NFN}, Table 17",
        {"nfn-np positions=none": (92.9, None)},
        of="nfn-np", varies=("positions",),
    ),
    Table(
        "M3", "classify", "nfn", "fashion-mnist", "accuracy", 100, "accuracy, %",
        "45,000 networks, 200,000 updates", f"{_MONOMIAL}, Table 3",
        {
            "monomial": (61.15, None), "nfn-np, one copy": (58.21, None),
            "nfn-hnp, one copy": (57.43, None),
        },
    ),
    Table(
        "N6", "classify", "nfn", "fashion-mnist", "accuracy", 100, "accuracy, %",
        "450,000 networks, 200,000 updates", f"{_NFN}, Table 17",
        {"nfn-np positions=none": (73.4, None)},
        of="nfn-np", varies=("positions",),
    ),
    Table(
        "M3", "classify", "nfn", "cifar10", "accuracy", 100, "accuracy, %",
        "45,000 networks, 200,000 updates", f"{_MONOMIAL}, Table 3",
        {
            "monomial": (34.23, None), "nfn-np, one copy": (33.74, None),
            "nfn-hnp, one copy": (31.61, None),
        },
    ),
    Table(
        "N6", "classify", "nfn", "cifar10", "accuracy", 100, "accuracy, %",
        "900,000 networks, 200,000 updates", f"{_NFN}, Table 17",
        {"nfn-np positions=none": (46.5, None)},
        of="nfn-np", varies=("positions",),
    ),
    Table(
        "M4", "edit", None, "mnist", "mse", 1, "MSE on [-1, 1]",
        _NFNS, f"{_MONOMIAL}, Table 4 (dilate)",
        {"monomial kind=editing": (0.069, None)},
        options=(("edit", "dilate"),),
    ),
    Table(
        "N6", "edit", None, "mnist", "mse", 1, "MSE on [-1, 1]",
        _NFNS, f"{_NFN}, Table 18 (dilate)",
        {"nfn-np positions=none": (0.07, None)},
        of="nfn-np", varies=("positions",),
        options=(("edit", "dilate"),),
    ),
    Table(
        "M4", "edit", None, "cifar10", "mse", 1, "MSE on [-1, 1]",
        _NFNS, f"{_MONOMIAL}, Table 4 (contrast)",
        {"monomial kind=editing": (0.02, None)},
        options=(("edit", "contrast"),),
    ),
    Table(
        "N6", "edit", None, "cifar10", "mse", 1, "MSE on [-1, 1]",
        _NFNS, f"{_NFN}, Table 18 (contrast)",
        {"nfn-np positions=none": (0.02, None)},
        of="nfn-np", varies=("positions",),
        options=(("edit", "contrast"),),
    ),
    Table(
        "M2", "generalize", "small-cnn", None, "tau", 1, "Kendall's tau",
        "Small CNN Zoo, CIFAR-10-GS, tanh half; another zoo than ours", f"{_MONOMIAL}, Table 2",
        {"monomial": (0.939, None), "monomial, signs augmented": (0.943, None)},
        fields=(("activation", "tanh"),),
    ),
    Table(
        "N1", "generalize", "small-cnn", None, "tau", 1, "Kendall's tau",
        "Small CNN Zoo, CIFAR-10-GS, 50 epochs; another zoo than ours",
        f"{_NFN}, Table 2; Monomial: {_MONOMIAL}, Table 2, ReLU half",
        {
            "nfn-hnp": (0.934, None), "nfn-np": (0.922, None), "statnn": (0.915, None),
            "monomial": (0.922, None),
        },
    ),
    Table(
        "M1", "generalize", "small-cnn", None, "tau", 1, "Kendall's tau",
        "Small CNN Zoo, CIFAR-10-GS, ReLU half; another zoo than ours", f"{_MONOMIAL}, Table 2",
        {
            "monomial, neurons scaled by up to 10": (0.920, None),
            "monomial, by up to 100": (0.919, None), "monomial, by up to 1,000": (0.920, None),
            "monomial, by up to 10,000": (0.920, None),
        },
        fields=(("activation", "relu"),),
    ),
    Table(
        "M5", "generalize", "small-cnn", None, "tau", 1, "Kendall's tau",
        "Small CNN Zoo, CIFAR-10-GS, ReLU half; another zoo than ours", f"{_MONOMIAL}, Table 24",
        {
            "monomial, 3 layers": (0.922, None), "monomial, 2 layers": (0.918, None),
            "monomial, 1 layer": (0.915, None),
        },
        fields=(("activation", "relu"),), of="monomial", varies=("channels",),
    ),
    Table(
        "N7", "generalize", "nfn-mlp5", "mnist", "tau", 1, "Kendall's tau",
        "2,000 runs, 20,000 networks, 50 epochs", f"{_NFN}, Table 19",
        {"nfn-hnp": (0.871, None), "nfn-np": (0.855, None), "statnn": (0.860, None)},
    ),
    Table(
        "N4", "tickets", "nfn-mlp3", "mnist", "accuracy_predicted", 100,
        "accuracy after training at 95% sparsity, %", "400 networks, 200 epochs",
        f"{_NFN}, Table 5",
        {
            "nfn-np": (94.8, None), "nfn-pt": (95.0, None), "dense": (97.8, None),
            "magnitude pruning (IMP)": (96.2, None), "random": (89.6, None),
        },
    ),
    Table(
        "N7", "generalize", "nfn-mlp3", "mnist", "tau", 1, "Kendall's tau",
        "2,000 runs, 20,000 networks, 50 epochs", f"{_NFN}, Table 19",
        {"nfn-hnp": (0.876, None), "nfn-np": (0.859, None), "statnn": (0.854, None)},
    ),
)  # fmt: skip


def tables_for(config: Mapping[str, Any]) -> list[Table]:
    """All tables that a run stands beside, of one unit: that of the first."""
    found = [table for table in TABLES if table.fits(config)]
    return [table for table in found if table.unit == found[0].unit]
