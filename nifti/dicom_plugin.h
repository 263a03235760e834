// What libvoxgrad_dicom.so offers: the few elements of a DICOM file that place its pixels, and the pixels. Everything else in the file (names,
// numbers, dates of the patient) never crosses this line. Plain C types alone, so that the plug-in needs nothing of ours.
#pragma once
#include <cstddef>
#include <cstdint>

namespace vg::dicom {

struct Tag {
  std::uint16_t group, element;
  const char* name;
  friend constexpr bool operator==(const Tag& a, const Tag& b) { return a.group == b.group && a.element == b.element; }
};

inline constexpr Tag kTransferSyntax{0x0002, 0x0010, "TransferSyntaxUID"}, kImageType{0x0008, 0x0008, "ImageType"},
    kInstanceUid{0x0008, 0x0018, "SOPInstanceUID"}, kModality{0x0008, 0x0060, "Modality"}, kThickness{0x0018, 0x0050, "SliceThickness"},
    kEchoTime{0x0018, 0x0081, "EchoTime"}, kEchoNumber{0x0018, 0x0086, "EchoNumbers"}, kBetweenSlices{0x0018, 0x0088, "SpacingBetweenSlices"},
    kSeriesUid{0x0020, 0x000e, "SeriesInstanceUID"}, kSeriesNumber{0x0020, 0x0011, "SeriesNumber"},
    kAcquisition{0x0020, 0x0012, "AcquisitionNumber"}, kInstance{0x0020, 0x0013, "InstanceNumber"},
    kPosition{0x0020, 0x0032, "ImagePositionPatient"}, kOrientation{0x0020, 0x0037, "ImageOrientationPatient"},
    kTemporal{0x0020, 0x0100, "TemporalPositionIdentifier"}, kTemporalIndex{0x0020, 0x9128, "TemporalPositionIndex"},
    kSamples{0x0028, 0x0002, "SamplesPerPixel"}, kPhotometric{0x0028, 0x0004, "PhotometricInterpretation"},
    kFrames{0x0028, 0x0008, "NumberOfFrames"}, kRows{0x0028, 0x0010, "Rows"}, kColumns{0x0028, 0x0011, "Columns"},
    kPixelSpacing{0x0028, 0x0030, "PixelSpacing"}, kAllocated{0x0028, 0x0100, "BitsAllocated"}, kStored{0x0028, 0x0101, "BitsStored"},
    kHighBit{0x0028, 0x0102, "HighBit"}, kSigned{0x0028, 0x0103, "PixelRepresentation"}, kIntercept{0x0028, 0x1052, "RescaleIntercept"},
    kSlope{0x0028, 0x1053, "RescaleSlope"}, kLossy{0x0028, 0x2110, "LossyImageCompression"}, kModalityLut{0x0028, 0x3000, "ModalityLUTSequence"},
    kFrameOffsets{0x3004, 0x000c, "GridFrameOffsetVector"}, kDoseScaling{0x3004, 0x000e, "DoseGridScaling"},
    kFloatPixels{0x7fe0, 0x0008, "FloatPixelData"}, kDoublePixels{0x7fe0, 0x0009, "DoubleFloatPixelData"}, kPixels{0x7fe0, 0x0010, "PixelData"};

// What crosses; of the pixels' elements the fact alone that they are there.
inline constexpr Tag kTags[] = {kTransferSyntax, kImageType,    kInstanceUid,  kModality,     kThickness,    kEchoTime,      kEchoNumber,
                                kBetweenSlices,  kSeriesUid,    kSeriesNumber, kAcquisition,  kInstance,     kPosition,      kOrientation,
                                kTemporal,       kTemporalIndex, kSamples,     kPhotometric,  kFrames,       kRows,          kColumns,
                                kPixelSpacing,   kAllocated,    kStored,       kHighBit,      kSigned,       kIntercept,     kSlope,
                                kLossy,          kModalityLut,  kFrameOffsets, kDoseScaling};

inline constexpr int kTopLevel = -1, kShared = -2;  // instead of a frame's number
inline constexpr int kPluginAbi = 1;

// Numbers come as decimal text, several values with a backslash between them, as DICOM writes them; a sequence as "sequence".
struct Sink {
  void* context;
  void (*element)(void* context, int frame, const Tag& tag, const char* text, std::size_t length);
};
struct Plugin {
  int abi;
  const char* version;
  // Both return nullptr, or what is wrong, as a text of the plug-in's own. They may crash, hang and eat memory: for child processes alone.
  const char* (*header)(const void* bytes, std::size_t size, const Sink& sink);
  // All frames one after the other, in the host's byte order, as many bytes as the file really holds.
  const char* (*pixels)(const void* bytes, std::size_t size, void (*take)(void* context, const void* data, std::size_t bytes), void* context);
};

}  // namespace vg::dicom
