"""Makes a zoo: runs a recipe on a source, from units to be fitted to a finished place.

Everything is planned, and all that can be checked is checked, before the first network is
fitted and before anything is written or removed. Then the site of the zoo is opened, the
shards that it lacks are fitted, here in chunks (`zoo.making.chunks`) or as tasks of a
cluster (`zoo.making.cluster`), and statistics, card and index end the work. A kill at any
moment costs what was under way, and the next run goes on from what is on disk.

The shards are a list that recipe, source and plan decide alone. A part is a range of it,
fitted in a folder of its own that ends without an index: see `zoo.making.merging`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from zoo import engines, machine, sources, stopping, storage
from zoo.making import chunks
from zoo.making.cluster import Cluster, checked, fit_on_cluster
from zoo.making.plan import Settings, plan_zoo
from zoo.making.progress import Progress
from zoo.making.site import Site, make, recipe_there, refuse_foreign, source_there
from zoo.making.workers import refuse_no_file, refuse_unguarded
from zoo.recipes import AnyRecipe, default_recipe
from zoo.shards import Index
from zoo.sources import Source, of_arrays

MOST_WORKERS = 256


def build(
    recipe: AnyRecipe | str | None,
    source: Source | str | NDArray[Any] | Tensor,
    out: str | Path,
    *,
    labels: NDArray[Any] | Tensor | Sequence[int] | None = None,
    data_root: str | Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    shard_rows: int | None = None,
    workers: int = 1,
    engine: str = "auto",
    device: str = "cpu",
    overwrite: bool = False,
    parquet: bool = True,
    pictures: bool = True,
    dtype: str = "float32",
    part: str | None = None,
    cluster: Cluster | str | None = None,
    threads: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> Index:
    """Make the zoo of a recipe and a source in `out`, or go on with it.

    A finished zoo of images or waves grows: with a larger `limit`, or without one with more
    `views`, its networks are taken over and only the others are fitted (by a cluster all).

    Args:
        recipe: or its name; None takes the source's default, or what that was when the zoo
            that lies there was begun.
        source: or its name, such as "mnist" or "imagefolder:PATH"; or pictures, uint8
            `item row column` or `item row column chan`.
        out: a folder. With a cluster all nodes see it under this path, or it is a URL such
            as s3://BUCKET/NAME.
        labels: of pictures that are given, a class for each, counted from 0.
        data_root: where a named source lies or is downloaded to; None takes
            $WSZOO_DATA, else ~/.cache/wszoo.
        limit: networks (of trajectories: runs) in all, split in the recipe's proportions,
            lowest indices first.
        seed: of every random number; below 2**32.
        shard_rows: networks of a shard; None chooses about 24 MB. Runs are not cut: a
            shard holds as many whole ones as fit, at least one.
        workers: processes that fit; 1 fits in a thread of this one. Device "cuda" on a
            machine of several GPUs takes at least one for each. A script that has more
            than one must guard its main code by `if __name__ == "__main__"`.
        engine: "auto", "cpu", "cuda", "reference", or for classifiers "torch".
        device: a torch device for the engines that do not run on the CPU alone; "cuda" is
            all GPUs, "cuda:1" is one of them.
        overwrite: replace a zoo that is already there. A finished one stays as it is, and
            opens, until the new one stands whole; both take room meanwhile. Called again,
            this goes on with the new one. An unfinished one of other settings is removed
            at once. At a URL the change is as `zoo.succession` says.
        parquet: also write the view that `datasets.load_dataset` reads.
        pictures: begin its rows with pictures, of what each network renders and, where the
            source's licence allows, of its original.
        dtype: "float32" is exact; classifiers may be kept as "float16" or "bfloat16".
        part: "0-99/1000" fits only parts 0 to 99 of the list of shards cut into 1,000
            equal ones; `zoo.merge` joins the folders of all parts.
        cluster: fit shards as tasks of a Ray cluster, or of the one at this address; wszoo
            has to be installed on all nodes, in the same versions, the source only here.
            The zoo is the same, to the byte where the CPUs are of one kind. Interrupted,
            the tasks are cancelled.
        threads: of all workers together; None takes what `zoo.machine` says.
        progress: called after every chunk, or shard of a cluster.
        warn: called with one line about anything found damaged and made again, and about
            each task of a cluster that was lost.

    Returns:
        The index of the finished zoo; of a part, what it would be of these shards alone.

    Raises:
        ValueError: for settings that make no sense, a place that holds something else, or
            if a cluster is asked for and Ray is not installed.
        ZooError: if someone else writes there, the disk, the cluster or the store fails,
            or a shard failed too often.
    """
    refuse_unguarded()
    if type(workers) is not int or workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    if workers > MOST_WORKERS:
        raise ValueError(f"workers must be at most {MOST_WORKERS}, got {workers}")
    if workers > 1:
        refuse_no_file()
    if threads is not None:
        machine.checked_threads(threads)
    if cluster is not None:
        cluster = checked(cluster, device, workers, part)
    elif storage.is_url(out):
        raise ValueError(f"{out} is written by the tasks of a cluster: add cluster='local'")
    where = storage.place(out)
    refuse_foreign(where)
    opened = _opened(source, labels)
    if recipe is None:
        called = sources.resolve(opened) if isinstance(opened, str) else opened.name
        there = None if overwrite else recipe_there(where).get("name")
        recipe = default_recipe(called, there=there)
    planned = plan_zoo(
        recipe,
        opened,
        where.name,
        Settings(
            limit=limit,
            seed=seed,
            shard_rows=shard_rows,
            engine=engine,
            device=device,
            parquet=parquet,
            pictures=pictures,
            dtype=dtype,
        ),
        data_root=data_root,
        elsewhere=cluster is not None,
        expect=None if overwrite else source_there(where),
    )
    if part is not None:
        planned = planned.part(part)
    told = progress or (lambda state: None)

    def fit(site: Site) -> None:
        if cluster is not None:
            fit_on_cluster(site, planned, cluster, device, told)
            return
        places = engines.devices(device)
        count = max(workers, len(places))
        own = [places[number % len(places)] for number in range(count)]
        chunks.fit(site, planned, own, told)

    with machine.using(threads), stopping.noticed():
        return make(where, planned, fit, overwrite, warn)


def _opened(
    source: Source | str | NDArray[Any] | Tensor,
    labels: NDArray[Any] | Tensor | Sequence[int] | None,
) -> Source | str:
    """The source, or its name, or a source of the pictures that are given."""
    if isinstance(source, np.ndarray | Tensor):
        return of_arrays(np.asarray(source), None if labels is None else np.asarray(labels))
    if labels is not None:
        raise ValueError("labels= goes with pictures that are given; a source has its own")
    return source


def build_on_cluster(
    recipe: AnyRecipe | str | None,
    source: Source | str | NDArray[Any] | Tensor,
    out: str | Path,
    cluster: Cluster | str = "local",
    **settings: Any,
) -> Index:
    """`build` with a cluster; the settings are those of `build`."""
    return build(recipe, source, out, cluster=cluster, **settings)
