"""What a de-identified DICOM image may keep: every attribute by its standard keyword (PS3.6).

All that is not listed here is left out, so an attribute that nobody thought of is gone, not kept.
Listed is what places pixels, what gives them a unit, what SUV needs, and what tells the volumes of
a series apart. Free text is never among it.
"""

# Numbers, and code strings (CS) that the standard defines; kept if they are of their kind.
KEPT = frozenset(
    {
        "ImageType", "Modality", "InstanceNumber", "SeriesNumber", "AcquisitionNumber",
        "ImagesInAcquisition", "PatientPosition", "ImageLaterality", "Laterality",
        "BurnedInAnnotation", "LossyImageCompression", "LossyImageCompressionRatio",
        "LossyImageCompressionMethod", "PatientWeight",
        "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "ImagerPixelSpacing",
        "PixelAspectRatio", "SliceThickness", "SpacingBetweenSlices", "SliceLocation",
        "GantryDetectorTilt",
        "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "NumberOfFrames",
        "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue",
        "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth",
        "VOILUTFunction", "PresentationLUTShape", "PixelIntensityRelationship",
        "PixelIntensityRelationshipSign",
        "KVP", "XRayTubeCurrent", "Exposure", "ExposureTime", "ReconstructionDiameter",
        "DataCollectionDiameter", "DistanceSourceToDetector", "DistanceSourceToPatient",
        "RotationDirection", "SpiralPitchFactor", "SingleCollimationWidth", "TotalCollimationWidth",
        "TableHeight", "FocalSpots",
        "ScanningSequence", "SequenceVariant", "ScanOptions", "MRAcquisitionType", "RepetitionTime",
        "EchoTime", "InversionTime", "TriggerTime", "FlipAngle", "EchoNumbers", "EchoTrainLength",
        "MagneticFieldStrength", "ImagingFrequency", "NumberOfAverages",
        "NumberOfPhaseEncodingSteps", "PercentSampling", "PercentPhaseFieldOfView",
        "PixelBandwidth", "InPlanePhaseEncodingDirection", "AcquisitionMatrix",
        "TemporalPositionIdentifier", "NumberOfTemporalPositions", "TemporalResolution",
        "DiffusionBValue", "DiffusionGradientOrientation",
        "Units", "CountsSource", "SeriesType", "CorrectedImage", "DecayCorrection",
        "CollimatorType", "RandomsCorrectionMethod", "ReprojectionMethod", "NumberOfSlices",
        "NumberOfRRIntervals", "NumberOfTimeSlots", "NumberOfTimeSlices", "NumberOfRotations",
        "ImageIndex", "FrameReferenceTime", "ActualFrameDuration", "DecayFactor",
        "DoseCalibrationFactor", "ScatterFractionFactor", "DeadTimeFactor",
        "SliceSensitivityFactor", "AxialAcceptance", "AxialMash", "TypeOfDetectorMotion",
        "FieldOfViewShape", "FieldOfViewDimensions", "RadionuclideTotalDose",
        "RadionuclideHalfLife", "RadionuclidePositronFraction",
        "FrameType", "PixelPresentation", "VolumetricProperties", "VolumeBasedCalculationTechnique",
        "ComplexImageComponent", "AcquisitionContrast", "DiffusionDirectionality",
        "ContentQualification", "FrameAcquisitionNumber", "FrameAcquisitionDuration",
        "InStackPositionNumber", "TemporalPositionIndex", "EffectiveEchoTime",
        "DimensionIndexValues", "DimensionIndexPointer", "FunctionalGroupPointer",
        "DimensionOrganizationType",
    }
)  # fmt: skip
# Texts (LO) of which only these values are kept; the last one stands in for any other.
TEXTS = {"RescaleType": ("HU", "BQML", "OD", "US")}
# Free texts that only need to stay different from each other; a keyed hash does that.
HASHED = frozenset({"StackID"})
# UIDs that name a class or a syntax of the standard, not an object.
CLASS_UIDS = frozenset({"SOPClassUID"})
# UIDs of objects: replaced by keyed ones, the same for the same.
UIDS = frozenset(
    {
        "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID",
        "DimensionOrganizationUID",
    }
)  # fmt: skip
# Dates and times: moved, all of a study by the same time (a patient's, if the user wishes).
MOMENTS = frozenset(
    {
        "StudyDate", "StudyTime", "SeriesDate", "SeriesTime", "AcquisitionDate", "AcquisitionTime",
        "ContentDate", "ContentTime", "AcquisitionDateTime", "FrameAcquisitionDateTime",
        "FrameReferenceDateTime", "RadiopharmaceuticalStartTime",
        "RadiopharmaceuticalStartDateTime",
    }
)  # fmt: skip
# Sequences whose items are looked through in the same way.
SEQUENCES = frozenset(
    {
        "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
        "PixelMeasuresSequence", "PlanePositionSequence", "PlaneOrientationSequence",
        "FrameContentSequence", "PixelValueTransformationSequence", "FrameVOILUTSequence",
        "DimensionOrganizationSequence", "DimensionIndexSequence", "CTImageFrameTypeSequence",
        "MRImageFrameTypeSequence", "PETFrameTypeSequence", "MRDiffusionSequence",
        "DiffusionGradientDirectionSequence", "MREchoSequence",
        "MRTimingAndRelatedParametersSequence", "RadiopharmaceuticalInformationSequence",
    }
)  # fmt: skip
# Required by the patient, study and equipment modules, but allowed to be empty (type 2).
ALWAYS_EMPTY = (
    "AccessionNumber", "ReferringPhysicianName", "StudyID", "PatientBirthDate", "PatientSex",
    "Manufacturer",
)  # fmt: skip
# Emptied where an image has them, since its kind of image asks for them (type 2).
EMPTIED = frozenset(
    {
        "PositionReferenceIndicator", "ContrastBolusAgent", "RadionuclideCodeSequence",
        "PatientOrientationCodeSequence", "PatientGantryRelationshipCodeSequence",
        "AcquisitionContextSequence",
    }
)  # fmt: skip
# Enhanced images ask for a value of these (type 1).
DUMMY = "removed"
DUMMIES = frozenset({"ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions"})
# Kinds of images that show text on the picture itself; secondary captures are told by SOP class.
BURNED_IN_MODALITIES = frozenset(
    {"DOC", "ECG", "ES", "GM", "IVUS", "OP", "OT", "RF", "SC", "US", "XA", "XC"}
)
SECONDARY_CAPTURES = "1.2.840.10008.5.1.4.1.1.7"
