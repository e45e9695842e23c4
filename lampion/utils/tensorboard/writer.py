"""PyTorch's SummaryWriter over the tensorboardX library."""

from __future__ import annotations

from typing import Any

from ...tensor import Tensor

__all__ = ["SummaryWriter"]


class SummaryWriter:
    """Writes scalars, images, histograms and more for TensorBoard.

    Needs the extra: ``pip install "lampion[tensorboard]"`` (ImportError otherwise).

    Args:
        log_dir: folder of the event files; by default ``runs/`` and the time and host.
        comment: added to the default folder's name.
        purge_step: what was logged at this step or later, before a crash, is hidden.
        max_queue, flush_secs: how much, and how long, events wait in memory.
        filename_suffix: added to the event files' names.
    """

    def __init__(
        self,
        log_dir: Any = None,
        comment: str = "",
        purge_step: int | None = None,
        max_queue: int = 10,
        flush_secs: int = 120,
        filename_suffix: str = "",
    ) -> None:
        writer = _library().SummaryWriter
        self._writer: Any = writer(
            logdir=None if log_dir is None else str(log_dir),
            comment=comment,
            purge_step=purge_step,
            max_queue=max_queue,
            flush_secs=flush_secs,
            filename_suffix=filename_suffix,
        )
        self.log_dir: str = self._writer.logdir

    def get_logdir(self) -> str:
        """The folder of the event files."""
        return self.log_dir

    def add_scalar(
        self, tag: str, scalar_value: Any, global_step: int | None = None,
        walltime: float | None = None, new_style: bool = False, double_precision: bool = False,
    ) -> None:
        """One number."""
        self._writer.add_scalar(tag, _plain(scalar_value), global_step, walltime)

    def add_scalars(
        self, main_tag: str, tag_scalar_dict: dict[str, Any], global_step: int | None = None,
        walltime: float | None = None,
    ) -> None:
        """Several numbers in one chart."""
        values = {key: _plain(value) for key, value in tag_scalar_dict.items()}
        self._writer.add_scalars(main_tag, values, global_step, walltime)

    def add_histogram(
        self, tag: str, values: Any, global_step: int | None = None, bins: Any = "tensorflow",
        walltime: float | None = None, max_bins: int | None = None,
    ) -> None:
        """The distribution of `values`."""
        self._writer.add_histogram(tag, _plain(values), global_step, bins, walltime, max_bins)

    def add_histogram_raw(
        self, tag: str, min: float, max: float, num: int, sum: float, sum_squares: float,
        bucket_limits: Any, bucket_counts: Any, global_step: int | None = None,
        walltime: float | None = None,
    ) -> None:
        """A distribution that was counted elsewhere."""
        numbers = [_plain(v) for v in (min, max, num, sum, sum_squares)]
        buckets = [_listed(bucket_limits), _listed(bucket_counts)]
        self._writer.add_histogram_raw(tag, *numbers, *buckets, global_step, walltime)

    def add_image(
        self, tag: str, img_tensor: Any, global_step: int | None = None,
        walltime: float | None = None, dataformats: str = "CHW",
    ) -> None:
        """A picture: floats in [0, 1] or uint8."""
        image = _plain(img_tensor)
        self._writer.add_image(tag, image, global_step, walltime, dataformats)

    def add_images(
        self, tag: str, img_tensor: Any, global_step: int | None = None,
        walltime: float | None = None, dataformats: str = "NCHW",
    ) -> None:
        """A batch of pictures."""
        images = _plain(img_tensor)
        self._writer.add_images(tag, images, global_step, walltime, dataformats)

    def add_image_with_boxes(
        self, tag: str, img_tensor: Any, box_tensor: Any, global_step: int | None = None,
        walltime: float | None = None, rescale: float = 1, dataformats: str = "CHW",
        labels: Any = None,
    ) -> None:
        """A picture with boxes ``(xmin, ymin, xmax, ymax)`` drawn on it."""
        self._writer.add_image_with_boxes(
            tag, _plain(img_tensor), _plain(box_tensor), global_step, walltime, dataformats,
            labels, rescale=rescale,
        )  # fmt: skip

    def add_figure(
        self, tag: str, figure: Any, global_step: int | None = None, close: bool = True,
        walltime: float | None = None,
    ) -> None:
        """A matplotlib figure, or a list of them."""
        self._writer.add_figure(tag, figure, global_step, close, walltime)

    def add_video(
        self, tag: str, vid_tensor: Any, global_step: int | None = None, fps: float = 4,
        walltime: float | None = None,
    ) -> None:
        """Pictures in time, of shape (N, T, C, H, W)."""
        self._writer.add_video(tag, _plain(vid_tensor), global_step, fps, walltime)

    def add_audio(
        self, tag: str, snd_tensor: Any, global_step: int | None = None, sample_rate: int = 44100,
        walltime: float | None = None,
    ) -> None:
        """A sound: values in [-1, 1]."""
        self._writer.add_audio(tag, _plain(snd_tensor), global_step, sample_rate, walltime)

    def add_text(
        self, tag: str, text_string: str, global_step: int | None = None,
        walltime: float | None = None,
    ) -> None:
        """A text, in Markdown."""
        self._writer.add_text(tag, text_string, global_step, walltime)

    def add_pr_curve(
        self, tag: str, labels: Any, predictions: Any, global_step: int | None = None,
        num_thresholds: int = 127, weights: Any = None, walltime: float | None = None,
    ) -> None:
        """Precision against recall of binary predictions."""
        self._writer.add_pr_curve(
            tag, _plain(labels), _plain(predictions), global_step, num_thresholds,
            _plain(weights), walltime,
        )  # fmt: skip

    def add_embedding(
        self, mat: Any, metadata: Any = None, label_img: Any = None,
        global_step: int | None = None, tag: str = "default", metadata_header: Any = None,
    ) -> None:
        """Points (rows of `mat`) for the projector."""
        self._writer.add_embedding(
            _plain(mat), _plain(metadata), _plain(label_img), global_step, tag, metadata_header
        )

    def add_mesh(
        self, tag: str, vertices: Any, colors: Any = None, faces: Any = None,
        config_dict: Any = None, global_step: int | None = None, walltime: float | None = None,
    ) -> None:
        """A mesh or a cloud of points in three dimensions."""
        self._writer.add_mesh(
            tag, _plain(vertices), _plain(colors), _plain(faces), config_dict, global_step,
            walltime,
        )  # fmt: skip

    def add_hparams(
        self, hparam_dict: dict[str, Any], metric_dict: dict[str, Any],
        hparam_domain_discrete: Any = None, run_name: str | None = None,
        global_step: int | None = None,
    ) -> None:
        """Hyperparameters and the metrics they led to."""
        options = {key: _plain(value) for key, value in hparam_dict.items()}
        metrics = {key: _plain(value) for key, value in metric_dict.items()}
        self._writer.add_hparams(options, metrics, run_name, global_step)

    def add_custom_scalars(self, layout: dict[str, Any]) -> None:
        """Charts of several scalars."""
        self._writer.add_custom_scalars(layout)

    def add_graph(
        self, model: Any, input_to_model: Any = None, verbose: bool = False,
        use_strict_trace: bool = True,
    ) -> None:
        """Not supported: NotImplementedError. ``print(model)`` shows the modules."""
        raise NotImplementedError(
            "lampion has no SummaryWriter.add_graph yet: it would need PyTorch's tracer; "
            "add_text with str(model) shows the modules"
        )

    def flush(self) -> None:
        """Write what waits in memory."""
        if self._writer.file_writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Write everything and close the files."""
        self._writer.close()

    def __enter__(self) -> SummaryWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _library() -> Any:
    try:
        import tensorboardX
    except ModuleNotFoundError as error:
        if error.name != "tensorboardX":
            raise
        raise ImportError(
            "SummaryWriter needs the tensorboardX library: "
            'pip install "lampion[tensorboard]"'
        ) from None
    return tensorboardX


def _plain(value: Any) -> Any:
    """Tensors as NumPy arrays, those of no dimension as numbers; anything else as it is."""
    if not isinstance(value, Tensor):
        return value
    value = value.detach()
    if value.dim() == 0:
        return value.item()
    if value.dtype.is_reduced:
        value = value.float()  # the library knows only NumPy's own dtypes
    return value.numpy()


def _listed(values: Any) -> list[Any]:
    return values.tolist() if hasattr(values, "tolist") else list(values)
