"""Image sets with stable example ids, domains and splits, and on-device batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from robusteval.schema.registry import Registry

if TYPE_CHECKING:
    from robusteval.data.augment import Augmentation
    from robusteval.data.imageset import Dataset

DATASETS: Registry[type[Dataset[Any]]] = Registry(
    "dataset",
    {
        "digits": (
            "robusteval.data.digits:Digits",
            "1,797 real handwritten digits at 16 x 16 RGB in eight domains; ships with scikit-learn",
        ),
        "image-folder": (
            "robusteval.data.image_folder:ImageFolder",
            "any tree domain/class/file or split/class/file of images",
        ),
        "cifar10": ("robusteval.data.cifar:Cifar10", "60,000 images of 32 px, 10 classes; published files or a folder"),
        "cifar100": ("robusteval.data.cifar:Cifar100", "60,000 images of 32 px, 100 classes; files or a folder"),
        "cifar10-c": ("robusteval.data.cifar_shifts:Cifar10C", "CIFAR-10 under 19 corruptions, published .npy files"),
        "cifar100-c": ("robusteval.data.cifar_shifts:Cifar100C", "CIFAR-100 under 19 corruptions, published files"),
        "cifar10.1": ("robusteval.data.cifar_shifts:Cifar101", "new test images for CIFAR-10, versions v4 and v6"),
        "huggingface": (
            "robusteval.data.hugging_face:HuggingFace",
            "image datasets of the Hugging Face hub; needs the extra huggingface",
        ),
        "imagenet": ("robusteval.data.imagenet:ImageNet", "ImageNet with V2, A, R and Sketch as domains, from folders"),
        "imagenet-c": ("robusteval.data.imagenet_c:ImageNetC", "ImageNet under 19 corruptions, published JPEG files"),
        "csv": ("robusteval.data.csv_index:CsvIndex", "image files in a list: path, label, domain, split"),
        "pacs": ("robusteval.data.multi_domain:Pacs", "art paintings, cartoons, photos and sketches, 7 classes"),
        "vlcs": ("robusteval.data.multi_domain:Vlcs", "photos from four collections, 5 classes"),
        "office-home": (
            "robusteval.data.multi_domain:OfficeHome",
            "art, clip art, product pictures and photos, 65 classes",
        ),
        "terra-incognita": ("robusteval.data.multi_domain:TerraIncognita", "camera traps at four places, 10 classes"),
        "domainnet": ("robusteval.data.multi_domain:DomainNet", "pictures in six styles, 345 classes"),
        "shifted": (
            "robusteval.shifts.dataset:ShiftedDataset",
            "another dataset under corruptions and other shifts, one domain for each; see `robusteval ls shifts`",
        ),
    },
)

AUGMENTATIONS: Registry[type[Augmentation[Any]]] = Registry(
    "augmentation",
    {
        "pad-crop": ("robusteval.data.augment:PadCrop", "pad with black or by reflection, cut out the old size"),
        "enlarge-crop": (
            "robusteval.data.enlarge_crop:EnlargeCrop",
            "enlarge a share of the images a little and cut out the old size, as Dassl does",
        ),
        "flip": ("robusteval.data.augment:Flip", "mirror left and right"),
        "colour-jitter": (
            "robusteval.data.augment:ColourJitter",
            "change brightness, contrast, saturation and hue",
        ),
        "grayscale": ("robusteval.data.augment:Grayscale", "drop the colours"),
        "random-resized-crop": (
            "robusteval.data.augment:RandomResizedCrop",
            "cut out a random rectangle and resize it",
        ),
        "translate": ("robusteval.data.augment:Translate", "shift by whole pixels, filling with black"),
    },
)
