# Tests of the general kernels, by family: the templates with their default holes, under every vector header.
kernel_test(general_elementwise elementwise_vf elementwise_any copy_rows copy_strided transpose fill pick)
kernel_test(general_rows softmax_vf softmax_any layer_norm_vf rms_norm_vf normalize_any reduce_rows_vf reduce_columns_vf
            reduce_any reduce_log_sum_exp arg_reduce topk cumsum)
kernel_test(general_windows pool_nhwc_vf pool_any resize_axis_vf resize_axis_any resize_bilinear_vf grid_sample col2im)
kernel_test(general_index gather gather_elements gather_nd scatter_elements scatter_nd trilu onehot range nonzero)
