"""Why a comparison of `geometry` may differ: by scan and reader, with the place in the standard."""

_PADDING = (
    "PS3.3 C.7.5.1.1.2: padding is no part of the image; medseg sets it to air and counts it "
    "(DCM-032), the others keep the padding value"
)
_LOSSY = (
    "lossy JPEG: decoders may round a stored value up or down (ISO/IEC 10918-2); medseg, GDCM and "
    "highdicom agree with each other"
)
_NAN = "the file stores NaN, which NIfTI-1 allows; ITK turns it into 0, nibabel and medseg keep it"
_NIFTI_2 = "ITK does not read NIfTI-2; nibabel agrees"
_BZIP2 = "the NRRD format allows bzip2; ITK is built without it"
_PREDICTED = (
    "lossless JPEG gives back what was stored (PS3.5 A.4.2): medseg, SimpleITK and highdicom equal "
    "the uncompressed CTImage.dcm, dcm2niix does not"
)
_MOSAIC = (
    "Siemens mosaics, which the standard does not know: slices lie side by side in one image, and "
    "only medseg and dcm2niix part them; these two agree"
)
_DEFLATED = "dcm2niix does not read deflated DICOM (PS3.5 A.5); SimpleITK and highdicom agree"

# (pattern of the scan, reader) -> reason.
EXCEPTIONS: dict[tuple[str, str], str] = {
    **{
        (scan, reader): _PADDING
        for scan in ("dicom_rtstruct_misc/*/mock_data CT*", "dicom_transfer_syntax_ct/CT1_J2KR")
        for reader in ("SimpleITK", "highdicom", "dcm2niix")
    },
    ("dicom_transfer_syntax_ct/*JPEGProcess1Transfer*", "dcm2niix"): _LOSSY,
    ("dicom_transfer_syntax_ct/*JPEGProcess14Transfer*", "dcm2niix"): _PREDICTED,
    ("dicom_transfer_syntax_dcmqa/In", "SimpleITK"): _MOSAIC,
    ("dicom_transfer_syntax_dcmqa/In", "highdicom"): _MOSAIC,
    ("dicom_transfer_syntax_ct/*Deflated*", "dcm2niix"): _DEFLATED,
    ("odd_nifti_nrrd/nibabel/resampled_anat_moved.nii", "SimpleITK"): _NAN,
    ("odd_nifti_nrrd/*nifti2.nii.gz", "SimpleITK"): _NIFTI_2,
    ("odd_nifti_nrrd/*_bz2.nrrd", "SimpleITK"): _BZIP2,
}
