/* Names and descriptions of all errors of the toolkit's driver_types.h. */
#include <map>
#include <string>
#include <cuda_runtime_api.h>

namespace
{

struct Text {
    const char *name;
    std::string words; /* "cudaErrorIllegalAddress" -> "illegal address" */
};

std::string words_of(const std::string &name)
{
    std::string out;
    for (size_t k = name.compare(0, 9, "cudaError") == 0 ? 9 : 4; k < name.size(); ++k) {
        bool upper = name[k] >= 'A' && name[k] <= 'Z', after_upper = k && name[k - 1] >= 'A' && name[k - 1] <= 'Z';
        if (upper && !after_upper && !out.empty()) out += ' ';
        out += upper ? static_cast<char>(name[k] - 'A' + 'a') : name[k];
    }
    return out;
}

const std::map<int, Text> &texts()
{
    static const auto
        *all =
            [] {
                auto *t = new std::map<int, Text>;
#define NAME(e) (*t)[e] = {#e, words_of(#e)};
                NAME(cudaSuccess)
                NAME(cudaErrorInvalidValue)
                NAME(cudaErrorMemoryAllocation) NAME(cudaErrorInitializationError) NAME(cudaErrorCudartUnloading) NAME(
                    cudaErrorProfilerDisabled) NAME(cudaErrorProfilerNotInitialized) NAME(cudaErrorProfilerAlreadyStarted)
                    NAME(cudaErrorProfilerAlreadyStopped) NAME(cudaErrorInvalidConfiguration) NAME(cudaErrorInvalidPitchValue) NAME(
                        cudaErrorInvalidSymbol) NAME(cudaErrorInvalidHostPointer) NAME(cudaErrorInvalidDevicePointer)
                        NAME(cudaErrorInvalidTexture) NAME(cudaErrorInvalidTextureBinding) NAME(cudaErrorInvalidChannelDescriptor) NAME(
                            cudaErrorInvalidMemcpyDirection) NAME(cudaErrorAddressOfConstant) NAME(cudaErrorTextureFetchFailed)
                            NAME(cudaErrorTextureNotBound) NAME(cudaErrorSynchronizationError) NAME(cudaErrorInvalidFilterSetting) NAME(
                                cudaErrorInvalidNormSetting) NAME(cudaErrorMixedDeviceExecution) NAME(cudaErrorNotYetImplemented)
                                NAME(cudaErrorMemoryValueTooLarge) NAME(cudaErrorStubLibrary) NAME(cudaErrorInsufficientDriver) NAME(
                                    cudaErrorCallRequiresNewerDriver) NAME(cudaErrorInvalidSurface) NAME(cudaErrorDuplicateVariableName)
                                    NAME(cudaErrorDuplicateTextureName) NAME(cudaErrorDuplicateSurfaceName) NAME(
                                        cudaErrorDevicesUnavailable) NAME(cudaErrorIncompatibleDriverContext) NAME(cudaErrorMissingConfiguration)
                                        NAME(cudaErrorPriorLaunchFailure) NAME(cudaErrorLaunchMaxDepthExceeded) NAME(
                                            cudaErrorLaunchFileScopedTex) NAME(cudaErrorLaunchFileScopedSurf) NAME(cudaErrorSyncDepthExceeded)
                                            NAME(cudaErrorLaunchPendingCountExceeded) NAME(cudaErrorInvalidDeviceFunction) NAME(
                                                cudaErrorNoDevice) NAME(cudaErrorInvalidDevice) NAME(cudaErrorDeviceNotLicensed)
                                                NAME(cudaErrorSoftwareValidityNotEstablished) NAME(cudaErrorStartupFailure) NAME(
                                                    cudaErrorInvalidKernelImage) NAME(cudaErrorDeviceUninitialized) NAME(cudaErrorMapBufferObjectFailed)
                                                    NAME(cudaErrorUnmapBufferObjectFailed) NAME(cudaErrorArrayIsMapped) NAME(
                                                        cudaErrorAlreadyMapped) NAME(cudaErrorNoKernelImageForDevice)
                                                        NAME(cudaErrorAlreadyAcquired) NAME(cudaErrorNotMapped) NAME(
                                                            cudaErrorNotMappedAsArray) NAME(cudaErrorNotMappedAsPointer)
                                                            NAME(cudaErrorECCUncorrectable) NAME(
                                                                cudaErrorUnsupportedLimit) NAME(cudaErrorDeviceAlreadyInUse)
                                                                NAME(cudaErrorPeerAccessUnsupported) NAME(
                                                                    cudaErrorInvalidPtx) NAME(cudaErrorInvalidGraphicsContext)
                                                                    NAME(cudaErrorNvlinkUncorrectable) NAME(
                                                                        cudaErrorJitCompilerNotFound) NAME(cudaErrorUnsupportedPtxVersion)
                                                                        NAME(cudaErrorJitCompilationDisabled) NAME(cudaErrorUnsupportedExecAffinity) NAME(cudaErrorUnsupportedDevSideSync) NAME(cudaErrorContained) NAME(cudaErrorInvalidSource) NAME(cudaErrorFileNotFound) NAME(cudaErrorSharedObjectSymbolNotFound) NAME(cudaErrorSharedObjectInitFailed) NAME(cudaErrorOperatingSystem) NAME(cudaErrorInvalidResourceHandle) NAME(cudaErrorIllegalState) NAME(cudaErrorLossyQuery) NAME(cudaErrorSymbolNotFound) NAME(cudaErrorNotReady) NAME(cudaErrorIllegalAddress) NAME(cudaErrorLaunchOutOfResources) NAME(cudaErrorLaunchTimeout) NAME(cudaErrorLaunchIncompatibleTexturing) NAME(cudaErrorPeerAccessAlreadyEnabled) NAME(cudaErrorPeerAccessNotEnabled) NAME(cudaErrorSetOnActiveProcess) NAME(cudaErrorContextIsDestroyed) NAME(cudaErrorAssert) NAME(cudaErrorTooManyPeers) NAME(cudaErrorHostMemoryAlreadyRegistered) NAME(cudaErrorHostMemoryNotRegistered) NAME(cudaErrorHardwareStackError) NAME(cudaErrorIllegalInstruction) NAME(cudaErrorMisalignedAddress) NAME(
                                                                            cudaErrorInvalidAddressSpace) NAME(cudaErrorInvalidPc) NAME(cudaErrorLaunchFailure)
                                                                            NAME(cudaErrorCooperativeLaunchTooLarge) NAME(cudaErrorTensorMemoryLeak) NAME(
                                                                                cudaErrorNotPermitted) NAME(cudaErrorNotSupported)
                                                                                NAME(cudaErrorSystemNotReady) NAME(cudaErrorSystemDriverMismatch) NAME(
                                                                                    cudaErrorCompatNotSupportedOnDevice) NAME(cudaErrorMpsConnectionFailed)
                                                                                    NAME(cudaErrorMpsRpcFailure) NAME(cudaErrorMpsServerNotReady) NAME(
                                                                                        cudaErrorMpsMaxClientsReached) NAME(cudaErrorMpsMaxConnectionsReached)
                                                                                        NAME(cudaErrorMpsClientTerminated) NAME(
                                                                                            cudaErrorCdpNotSupported)
                                                                                            NAME(cudaErrorCdpVersionMismatch) NAME(
                                                                                                cudaErrorStreamCaptureUnsupported) NAME(cudaErrorStreamCaptureInvalidated)
                                                                                                NAME(cudaErrorStreamCaptureMerge) NAME(
                                                                                                    cudaErrorStreamCaptureUnmatched) NAME(cudaErrorStreamCaptureUnjoined)
                                                                                                    NAME(cudaErrorStreamCaptureIsolation) NAME(
                                                                                                        cudaErrorStreamCaptureImplicit)
                                                                                                        NAME(cudaErrorCapturedEvent) NAME(
                                                                                                            cudaErrorStreamCaptureWrongThread)
                                                                                                            NAME(cudaErrorTimeout) NAME(
                                                                                                                cudaErrorGraphExecUpdateFailure)
                                                                                                                NAME(cudaErrorExternalDevice) NAME(
                                                                                                                    cudaErrorInvalidClusterSize)
                                                                                                                    NAME(
                                                                                                                        cudaErrorFunctionNotLoaded)
                                                                                                                        NAME(
                                                                                                                            cudaErrorInvalidResourceType)
                                                                                                                            NAME(
                                                                                                                                cudaErrorInvalidResourceConfiguration)
                                                                                                                                NAME(
                                                                                                                                    cudaErrorUnknown)
#undef NAME
                                                                                                                                    return t;
            }();
    return *all;
}

} // namespace

extern "C" {

const char *cudaGetErrorName(cudaError_t error)
{
    auto it = texts().find(error);
    return it == texts().end() ? "unrecognized error code" : it->second.name;
}

const char *cudaGetErrorString(cudaError_t error)
{
    auto it = texts().find(error);
    return it == texts().end() ? "unrecognized error code" : it->second.words.c_str();
}

} // extern "C"
