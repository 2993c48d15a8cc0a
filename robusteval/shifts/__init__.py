"""Corruptions and procedural domain shifts, batched on the device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from robusteval.schema.registry import Registry

if TYPE_CHECKING:
    from robusteval.shifts.base import Shift

SHIFTS: Registry[type[Shift[Any]]] = Registry(
    "shift",
    {
        "gaussian_noise": ("robusteval.shifts.noise:GaussianNoise", "normal noise of one size everywhere"),
        "shot_noise": ("robusteval.shifts.noise:ShotNoise", "Poisson noise, as of few photons"),
        "impulse_noise": ("robusteval.shifts.noise:ImpulseNoise", "some values set to black or white"),
        "speckle_noise": ("robusteval.shifts.noise:SpeckleNoise", "normal noise in proportion to the value"),
        "gaussian_blur": ("robusteval.shifts.blur:GaussianBlur", "blur with a Gaussian"),
        "defocus_blur": ("robusteval.shifts.blur:DefocusBlur", "blur with a disk, as of a lens out of focus"),
        "glass_blur": ("robusteval.shifts.glass:GlassBlur", "pixels scattered as by frosted glass"),
        "motion_blur": ("robusteval.shifts.blur:MotionBlur", "blur along a ray, as of a moving camera"),
        "zoom_blur": ("robusteval.shifts.blur:ZoomBlur", "mean of zooms, as of a camera that moves ahead"),
        "snow": ("robusteval.shifts.snow:Snow", "flakes blown over a whitened image"),
        "frost": ("robusteval.shifts.frost:Frost", "ice crystals over the image, with procedural textures"),
        "fog": ("robusteval.shifts.fog:Fog", "a fractal cloud over the image"),
        "brightness": ("robusteval.shifts.digital:Brightness", "a higher value in hue, saturation, value"),
        "contrast": ("robusteval.shifts.digital:Contrast", "less contrast around the mean of each channel"),
        "saturate": ("robusteval.shifts.digital:Saturate", "less or more saturation"),
        "elastic_transform": ("robusteval.shifts.elastic:ElasticTransform", "a random affine and elastic warp"),
        "pixelate": ("robusteval.shifts.digital:Pixelate", "shrunk and grown back"),
        "jpeg_compression": ("robusteval.shifts.jpeg:JpegCompression", "saved as JPEG and read again"),
        "spatter": ("robusteval.shifts.spatter:Spatter", "drops of water or mud on the lens"),
        "channel-statistics": ("robusteval.shifts.style:ChannelStatistics", "mean and deviation of a random style"),
        "sketch": ("robusteval.shifts.style:Sketch", "dark strokes along edges, blended over the image"),
        "posterise": ("robusteval.shifts.style:Posterise", "each channel in few steps"),
        "colour-cast": ("robusteval.shifts.style:ColourCast", "light of another colour"),
    },
)
