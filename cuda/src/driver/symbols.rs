//! The functions of the CUDA driver, forwarded to the library that is found at run time.
//!
//! `cust` calls the driver as if it were linked. Nothing is: the linker finds these definitions instead, one for each
//! function that `cust` 0.3.2 or this crate names. The first call of any of them opens `libcuda.so.1`; each looks its
//! namesake up once. Where there is no library every call answers `CUDA_ERROR_NO_DEVICE`, where the library does not
//! have the function, `CUDA_ERROR_NOT_SUPPORTED`, so a program without a driver starts and runs like any other.
//!
//! The executable does not export these names, so the driver's own libraries never see them.
#![allow(non_snake_case)]

use std::ffi::{CStr, c_char, c_int, c_uchar, c_uint, c_ulonglong, c_ushort, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use cust::sys::*;

/// File name of the driver's library.
pub(crate) const LIBRARY: &str = "libcuda.so.1";

/// The driver's library, opened on first use and never closed. Errors: the loader's message.
pub(crate) fn library() -> Result<&'static libloading::Library, &'static str> {
    static DRIVER: OnceLock<Result<libloading::Library, String>> = OnceLock::new();
    // SAFETY: the initializers of NVIDIA's driver library have no preconditions; it is a system library that any
    // CUDA program loads in this way.
    DRIVER
        .get_or_init(|| unsafe { libloading::Library::new(LIBRARY) }.map_err(|e| e.to_string()))
        .as_ref()
        .map_err(String::as_str)
}

const UNKNOWN: usize = 0;
const ABSENT: usize = 1;

/// Address of a function of the driver, remembered in `slot`. Errors: the code to answer with.
fn entry(slot: &AtomicUsize, name: &CStr) -> Result<usize, CUresult> {
    let known = match slot.load(Ordering::Acquire) {
        UNKNOWN => {
            let library = library().map_err(|_| cudaError_enum::CUDA_ERROR_NO_DEVICE)?;
            // SAFETY: the symbol is only taken as an address here; its type is given where it is called.
            let found = unsafe { library.get::<*const c_void>(name.to_bytes_with_nul()) };
            let address = found.map_or(ABSENT, |symbol| *symbol as usize);
            slot.store(address, Ordering::Release);
            address
        }
        known => known,
    };
    if known == ABSENT { Err(cudaError_enum::CUDA_ERROR_NOT_SUPPORTED) } else { Ok(known) }
}

/// A code of the driver as the bindings know it; newer drivers have newer codes, and those are unknown errors: an
/// enumeration must not hold them.
fn known(code: c_uint) -> CUresult {
    if code == 0 {
        return cudaError_enum::CUDA_SUCCESS;
    }
    CODES.iter().copied().find(|c| *c as c_uint == code).unwrap_or(cudaError_enum::CUDA_ERROR_UNKNOWN)
}

/// The codes of the bindings (CUDA 11.4).
const CODES: &[CUresult] = {
    use cust::sys::cudaError_enum::*;
    &[
        CUDA_ERROR_INVALID_VALUE,
        CUDA_ERROR_OUT_OF_MEMORY,
        CUDA_ERROR_NOT_INITIALIZED,
        CUDA_ERROR_DEINITIALIZED,
        CUDA_ERROR_PROFILER_DISABLED,
        CUDA_ERROR_PROFILER_NOT_INITIALIZED,
        CUDA_ERROR_PROFILER_ALREADY_STARTED,
        CUDA_ERROR_PROFILER_ALREADY_STOPPED,
        CUDA_ERROR_STUB_LIBRARY,
        CUDA_ERROR_NO_DEVICE,
        CUDA_ERROR_INVALID_DEVICE,
        CUDA_ERROR_DEVICE_NOT_LICENSED,
        CUDA_ERROR_INVALID_IMAGE,
        CUDA_ERROR_INVALID_CONTEXT,
        CUDA_ERROR_CONTEXT_ALREADY_CURRENT,
        CUDA_ERROR_MAP_FAILED,
        CUDA_ERROR_UNMAP_FAILED,
        CUDA_ERROR_ARRAY_IS_MAPPED,
        CUDA_ERROR_ALREADY_MAPPED,
        CUDA_ERROR_NO_BINARY_FOR_GPU,
        CUDA_ERROR_ALREADY_ACQUIRED,
        CUDA_ERROR_NOT_MAPPED,
        CUDA_ERROR_NOT_MAPPED_AS_ARRAY,
        CUDA_ERROR_NOT_MAPPED_AS_POINTER,
        CUDA_ERROR_ECC_UNCORRECTABLE,
        CUDA_ERROR_UNSUPPORTED_LIMIT,
        CUDA_ERROR_CONTEXT_ALREADY_IN_USE,
        CUDA_ERROR_PEER_ACCESS_UNSUPPORTED,
        CUDA_ERROR_INVALID_PTX,
        CUDA_ERROR_INVALID_GRAPHICS_CONTEXT,
        CUDA_ERROR_NVLINK_UNCORRECTABLE,
        CUDA_ERROR_JIT_COMPILER_NOT_FOUND,
        CUDA_ERROR_UNSUPPORTED_PTX_VERSION,
        CUDA_ERROR_JIT_COMPILATION_DISABLED,
        CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY,
        CUDA_ERROR_INVALID_SOURCE,
        CUDA_ERROR_FILE_NOT_FOUND,
        CUDA_ERROR_SHARED_OBJECT_SYMBOL_NOT_FOUND,
        CUDA_ERROR_SHARED_OBJECT_INIT_FAILED,
        CUDA_ERROR_OPERATING_SYSTEM,
        CUDA_ERROR_INVALID_HANDLE,
        CUDA_ERROR_ILLEGAL_STATE,
        CUDA_ERROR_NOT_FOUND,
        CUDA_ERROR_NOT_READY,
        CUDA_ERROR_ILLEGAL_ADDRESS,
        CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES,
        CUDA_ERROR_LAUNCH_TIMEOUT,
        CUDA_ERROR_LAUNCH_INCOMPATIBLE_TEXTURING,
        CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED,
        CUDA_ERROR_PEER_ACCESS_NOT_ENABLED,
        CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE,
        CUDA_ERROR_CONTEXT_IS_DESTROYED,
        CUDA_ERROR_ASSERT,
        CUDA_ERROR_TOO_MANY_PEERS,
        CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED,
        CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED,
        CUDA_ERROR_HARDWARE_STACK_ERROR,
        CUDA_ERROR_ILLEGAL_INSTRUCTION,
        CUDA_ERROR_MISALIGNED_ADDRESS,
        CUDA_ERROR_INVALID_ADDRESS_SPACE,
        CUDA_ERROR_INVALID_PC,
        CUDA_ERROR_LAUNCH_FAILED,
        CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE,
        CUDA_ERROR_NOT_PERMITTED,
        CUDA_ERROR_NOT_SUPPORTED,
        CUDA_ERROR_SYSTEM_NOT_READY,
        CUDA_ERROR_SYSTEM_DRIVER_MISMATCH,
        CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE,
        CUDA_ERROR_MPS_CONNECTION_FAILED,
        CUDA_ERROR_MPS_RPC_FAILURE,
        CUDA_ERROR_MPS_SERVER_NOT_READY,
        CUDA_ERROR_MPS_MAX_CLIENTS_REACHED,
        CUDA_ERROR_MPS_MAX_CONNECTIONS_REACHED,
        CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
        CUDA_ERROR_STREAM_CAPTURE_INVALIDATED,
        CUDA_ERROR_STREAM_CAPTURE_MERGE,
        CUDA_ERROR_STREAM_CAPTURE_UNMATCHED,
        CUDA_ERROR_STREAM_CAPTURE_UNJOINED,
        CUDA_ERROR_STREAM_CAPTURE_ISOLATION,
        CUDA_ERROR_STREAM_CAPTURE_IMPLICIT,
        CUDA_ERROR_CAPTURED_EVENT,
        CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD,
        CUDA_ERROR_TIMEOUT,
        CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE,
        CUDA_ERROR_EXTERNAL_DEVICE,
        CUDA_ERROR_UNKNOWN,
    ]
};

/// ```ignore
/// forward! { cuInit(a: c_uint); }
/// // expands to
/// #[unsafe(no_mangle)]
/// unsafe extern "C" fn cuInit(a: c_uint) -> CUresult { /* look up once, then call with `a` */ }
/// ```
macro_rules! forward {
    ($($name:ident($($arg:ident: $ty:ty),* $(,)?);)*) => {$(
        // SAFETY: the name belongs to the driver's interface and has its signature; nothing else in the program
        // defines it, because nothing links the driver.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name($($arg: $ty),*) -> CUresult {
            static SLOT: AtomicUsize = AtomicUsize::new(UNKNOWN);
            const NAME: &CStr = match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                Ok(name) => name,
                Err(_) => c"",
            };
            match entry(&SLOT, NAME) {
                // SAFETY: the address is that of the driver's function of this name, whose signature is the one
                // that cust_raw generated from NVIDIA's header; the caller keeps its contract.
                Ok(address) => known(unsafe {
                    std::mem::transmute::<usize, unsafe extern "C" fn($($ty),*) -> c_uint>(address)($($arg),*)
                }),
                Err(code) => code,
            }
        }
    )*};
}

forward! {
cuArray3DCreate_v2(a: *mut CUarray, b: *const CUDA_ARRAY3D_DESCRIPTOR);
cuArray3DGetDescriptor_v2(a: *mut CUDA_ARRAY3D_DESCRIPTOR, b: CUarray);
cuArrayDestroy(a: CUarray);
cuCtxCreate_v2(a: *mut CUcontext, b: c_uint, c: CUdevice);
cuCtxDestroy_v2(a: CUcontext);
cuCtxGetApiVersion(a: CUcontext, b: *mut c_uint);
cuCtxGetCacheConfig(a: *mut CUfunc_cache);
cuCtxGetCurrent(a: *mut CUcontext);
cuCtxGetDevice(a: *mut CUdevice);
cuCtxGetFlags(a: *mut c_uint);
cuCtxGetLimit(a: *mut usize, b: CUlimit);
cuCtxGetSharedMemConfig(a: *mut CUsharedconfig);
cuCtxGetStreamPriorityRange(a: *mut c_int, b: *mut c_int);
cuCtxPopCurrent_v2(a: *mut CUcontext);
cuCtxPushCurrent_v2(a: CUcontext);
cuCtxSetCacheConfig(a: CUfunc_cache);
cuCtxSetCurrent(a: CUcontext);
cuCtxSetLimit(a: CUlimit, b: usize);
cuCtxSetSharedMemConfig(a: CUsharedconfig);
cuCtxSynchronize();
cuDestroyExternalMemory(a: CUexternalMemory);
cuDeviceGet(a: *mut CUdevice, b: c_int);
cuDeviceGetAttribute(a: *mut c_int, b: CUdevice_attribute, c: CUdevice);
cuDeviceGetCount(a: *mut c_int);
cuDeviceGetName(a: *mut c_char, b: c_int, c: CUdevice);
cuDevicePrimaryCtxRelease_v2(a: CUdevice);
cuDevicePrimaryCtxReset_v2(a: CUdevice);
cuDevicePrimaryCtxRetain(a: *mut CUcontext, b: CUdevice);
cuDevicePrimaryCtxSetFlags_v2(a: CUdevice, b: c_uint);
cuDeviceTotalMem_v2(a: *mut usize, b: CUdevice);
cuDriverGetVersion(a: *mut c_int);
cuEventCreate(a: *mut CUevent, b: c_uint);
cuEventDestroy_v2(a: CUevent);
cuEventElapsedTime(a: *mut f32, b: CUevent, c: CUevent);
cuEventQuery(a: CUevent);
cuEventRecord(a: CUevent, b: CUstream);
cuEventSynchronize(a: CUevent);
cuExternalMemoryGetMappedBuffer(
    a: *mut CUdeviceptr, b: CUexternalMemory, c: *const CUDA_EXTERNAL_MEMORY_BUFFER_DESC,
);
cuFuncGetAttribute(a: *mut c_int, b: CUfunction_attribute, c: CUfunction);
cuFuncSetAttribute(a: CUfunction, b: CUfunction_attribute, c: c_int);
cuFuncSetCacheConfig(a: CUfunction, b: CUfunc_cache);
cuFuncSetSharedMemConfig(a: CUfunction, b: CUsharedconfig);
cuGetErrorName(a: CUresult, b: *mut *const c_char);
cuGetErrorString(a: CUresult, b: *mut *const c_char);
cuGraphAddKernelNode(
    a: *mut CUgraphNode, b: CUgraph, c: *const CUgraphNode, d: usize, e: *const CUDA_KERNEL_NODE_PARAMS,
);
cuGraphCreate(a: *mut CUgraph, b: c_uint);
cuGraphDebugDotPrint(a: CUgraph, b: *const c_char, c: c_uint);
cuGraphDestroy(a: CUgraph);
cuGraphExecDestroy(a: CUgraphExec);
cuGraphGetEdges(a: CUgraph, b: *mut CUgraphNode, c: *mut CUgraphNode, d: *mut usize);
cuGraphGetNodes(a: CUgraph, b: *mut CUgraphNode, c: *mut usize);
cuGraphInstantiateWithFlags(a: *mut CUgraphExec, b: CUgraph, c: c_ulonglong);
cuGraphInstantiate_v2(a: *mut CUgraphExec, b: CUgraph, c: *mut CUgraphNode, d: *mut c_char, e: usize);
cuGraphKernelNodeGetParams(a: CUgraphNode, b: *mut CUDA_KERNEL_NODE_PARAMS);
cuGraphLaunch(a: CUgraphExec, b: CUstream);
cuGraphNodeGetType(a: CUgraphNode, b: *mut CUgraphNodeType);
cuImportExternalMemory(a: *mut CUexternalMemory, b: *const CUDA_EXTERNAL_MEMORY_HANDLE_DESC);
cuInit(a: c_uint);
cuLaunchCooperativeKernel(
    a: CUfunction, b: c_uint, c: c_uint, d: c_uint, e: c_uint, f: c_uint, g: c_uint, h: c_uint, i: CUstream, j: *mut *mut c_void,
);
cuLaunchHostFunc(a: CUstream, b: CUhostFn, c: *mut c_void);
cuLaunchKernel(
    a: CUfunction, b: c_uint, c: c_uint, d: c_uint, e: c_uint, f: c_uint, g: c_uint, h: c_uint, i: CUstream, j: *mut *mut c_void, k: *mut *mut c_void,
);
cuLinkAddData_v2(
    a: CUlinkState, b: CUjitInputType, c: *mut c_void, d: usize, e: *const c_char, f: c_uint, g: *mut CUjit_option, h: *mut *mut c_void,
);
cuLinkComplete(a: CUlinkState, b: *mut *mut c_void, c: *mut usize);
cuLinkCreate_v2(a: c_uint, b: *mut CUjit_option, c: *mut *mut c_void, d: *mut CUlinkState);
cuLinkDestroy(a: CUlinkState);
cuMemAdvise(a: CUdeviceptr, b: usize, c: CUmem_advise, d: CUdevice);
cuMemAllocAsync(a: *mut CUdeviceptr, b: usize, c: CUstream);
cuMemAllocHost_v2(a: *mut *mut c_void, b: usize);
cuMemAllocManaged(a: *mut CUdeviceptr, b: usize, c: c_uint);
cuMemAlloc_v2(a: *mut CUdeviceptr, b: usize);
cuMemFreeAsync(a: CUdeviceptr, b: CUstream);
cuMemFreeHost(a: *mut c_void);
cuMemFree_v2(a: CUdeviceptr);
cuMemGetInfo_v2(a: *mut usize, b: *mut usize);
cuMemPrefetchAsync(a: CUdeviceptr, b: usize, c: CUdevice, d: CUstream);
cuMemcpy2D_v2(a: *const CUDA_MEMCPY2D);
cuMemcpyAtoH_v2(a: *mut c_void, b: CUarray, c: usize, d: usize);
cuMemcpyDtoDAsync_v2(a: CUdeviceptr, b: CUdeviceptr, c: usize, d: CUstream);
cuMemcpyDtoD_v2(a: CUdeviceptr, b: CUdeviceptr, c: usize);
cuMemcpyDtoHAsync_v2(a: *mut c_void, b: CUdeviceptr, c: usize, d: CUstream);
cuMemcpyDtoH_v2(a: *mut c_void, b: CUdeviceptr, c: usize);
cuMemcpyHtoA_v2(a: CUarray, b: usize, c: *const c_void, d: usize);
cuMemcpyHtoDAsync_v2(a: CUdeviceptr, b: *const c_void, c: usize, d: CUstream);
cuMemcpyHtoD_v2(a: CUdeviceptr, b: *const c_void, c: usize);
cuMemsetD16Async(a: CUdeviceptr, b: c_ushort, c: usize, d: CUstream);
cuMemsetD16_v2(a: CUdeviceptr, b: c_ushort, c: usize);
cuMemsetD32Async(a: CUdeviceptr, b: c_uint, c: usize, d: CUstream);
cuMemsetD32_v2(a: CUdeviceptr, b: c_uint, c: usize);
cuMemsetD8Async(a: CUdeviceptr, b: c_uchar, c: usize, d: CUstream);
cuMemsetD8_v2(a: CUdeviceptr, b: c_uchar, c: usize);
cuModuleGetFunction(a: *mut CUfunction, b: CUmodule, c: *const c_char);
cuModuleGetGlobal_v2(a: *mut CUdeviceptr, b: *mut usize, c: CUmodule, d: *const c_char);
cuModuleLoad(a: *mut CUmodule, b: *const c_char);
cuModuleLoadData(a: *mut CUmodule, b: *const c_void);
cuModuleLoadDataEx(
    a: *mut CUmodule, b: *const c_void, c: c_uint, d: *mut CUjit_option, e: *mut *mut c_void,
);
cuModuleUnload(a: CUmodule);
cuOccupancyAvailableDynamicSMemPerBlock(a: *mut usize, b: CUfunction, c: c_int, d: c_int);
cuOccupancyMaxActiveBlocksPerMultiprocessor(a: *mut c_int, b: CUfunction, c: c_int, d: usize);
cuOccupancyMaxPotentialBlockSize(
    a: *mut c_int, b: *mut c_int, c: CUfunction, d: CUoccupancyB2DSize, e: usize, f: c_int,
);
cuStreamBeginCapture_v2(a: CUstream, b: CUstreamCaptureMode);
cuStreamCreateWithPriority(a: *mut CUstream, b: c_uint, c: c_int);
cuStreamDestroy_v2(a: CUstream);
cuStreamEndCapture(a: CUstream, b: *mut CUgraph);
cuStreamGetFlags(a: CUstream, b: *mut c_uint);
cuStreamGetPriority(a: CUstream, b: *mut c_int);
cuStreamSynchronize(a: CUstream);
cuStreamWaitEvent(a: CUstream, b: CUevent, c: c_uint);
cuSurfObjectCreate(a: *mut CUsurfObject, b: *const CUDA_RESOURCE_DESC);
cuSurfObjectDestroy(a: CUsurfObject);
cuSurfObjectGetResourceDesc(a: *mut CUDA_RESOURCE_DESC, b: CUsurfObject);
cuTexObjectCreate(
    a: *mut CUtexObject, b: *const CUDA_RESOURCE_DESC, c: *const CUDA_TEXTURE_DESC, d: *const CUDA_RESOURCE_VIEW_DESC,
);
cuTexObjectDestroy(a: CUtexObject);
cuTexObjectGetResourceDesc(a: *mut CUDA_RESOURCE_DESC, b: CUtexObject);}
