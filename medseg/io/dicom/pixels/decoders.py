"""Which transfer syntaxes the installed decoders read, and what to install for the others."""

from pydicom.pixels import get_decoder

from medseg.core.errors import ReadError
from medseg.io.dicom.pixels.storage import Storage

# The packages that decode what the installed plug-ins cannot, by transfer syntax.
_PACKAGES = {
    "1.2.840.10008.1.2.4.57": "python-gdcm",
    "1.2.840.10008.1.2.4.70": "python-gdcm",
    "1.2.840.10008.1.2.4.80": "pyjpegls",
    "1.2.840.10008.1.2.4.81": "pyjpegls",
}
_DEFAULT_PACKAGE = "pylibjpeg pylibjpeg-openjpeg"
# Of this syntax, Pillow and GDCM decode only the 8-bit kind.
_JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
_EXTENDED_PLUGIN, _EXTENDED_PACKAGE = "pylibjpeg", "pylibjpeg-libjpeg (licensed under the GPL)"


def require_decoder(storage: Storage, bits: int) -> None:
    """Refuse a transfer syntax that nothing here decodes.

    Args:
        storage: of the file.
        bits: that count in each of its pixels.

    Raises:
        ReadError: DCM-013, with the package that is missing, if there is one.
    """
    syntax = storage.syntax
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as fault:
        raise ReadError(
            f"{storage.name}: transfer syntax {syntax.name} ({syntax}) cannot be decoded by any "
            "package",
            code="DCM-013",
            hint="it is retired or not for images; convert the series with its own software",
        ) from fault
    package = "" if decoder.is_available else _PACKAGES.get(syntax, _DEFAULT_PACKAGE)
    if syntax == _JPEG_EXTENDED and bits > 8 and _EXTENDED_PLUGIN not in decoder.available_plugins:
        package = _EXTENDED_PACKAGE
    if package:
        raise ReadError(
            f"{storage.name}: transfer syntax {syntax.name} ({syntax}) of {bits} bits needs a "
            "decoder that is not here",
            code="DCM-013",
            hint=f"pip install {package}",
        )
