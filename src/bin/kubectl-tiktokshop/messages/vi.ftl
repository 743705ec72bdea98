# Tiếng Việt.

refresh-title = Bắt đầu refresh TikTok Shop tokens...
refresh-title-dry-run = Bắt đầu refresh TikTok Shop tokens (chạy thử: không thay đổi gì)...
found = Tìm thấy { $count } integration(s)
results = Chi tiết kết quả:
integration = Integration { $name }
integration-of-team = Integration { $name } (Team { $team })

result-refreshed = Refresh thành công - Hết hạn: { $expires }
result-refreshed-unknown = Refresh thành công - Không rõ thời điểm hết hạn
result-skipped = Bỏ qua - { $why }
result-failed = Lỗi - { $why }
result-timeout = Quá thời gian chờ - { $why }
result-would-refresh = Sẽ được refresh - Hết hạn: { $expires }
result-would-refresh-unknown = Sẽ được refresh - Không rõ thời điểm hết hạn

why-hours = Token còn { $hours } giờ mới hết hạn
why-not-due = Chưa đến hạn trước { $time }
why-suspended = Đang tạm dừng: đặt spec.suspend thành false để được refresh
why-not-taken-up = Đã yêu cầu { $seconds } giây trước nhưng chưa có gì được thực hiện: có vẻ operator không chạy
why-still-under-way = Chưa có kết quả trong { $timeout }: xem lại bằng kubectl tiktokshop status
why-interrupted = Vẫn đang thực hiện
why-not-asked = Chưa được yêu cầu vì đã ngừng chờ
why-deleted = Integration đã bị xóa trong lúc chờ
why-conflict = Integration liên tục bị thay đổi trong lúc đánh giá: hãy thử lại
why-request = Không ghi được yêu cầu: { $error }

summary = Kết quả tổng kết:
summary-refreshed = Đã refresh: { $count }
summary-skipped = Đã bỏ qua: { $count }
summary-failed = Lỗi: { $count }
summary-timeout = Quá thời gian chờ: { $count }
summary-would-refresh = Sẽ được refresh: { $count }

progress = Xong { $done }/{ $total }, { $rate } mỗi giây, còn { $left }
progress-start = Xong { $done }/{ $total }

interrupted = đã ngừng chờ; { $count } integration vẫn đang thực hiện: { $names }. Operator vẫn tiếp tục: xem bằng kubectl tiktokshop status
interrupted-idle = đã dừng
and-more = { $names } và { $count } integration khác
no-operator = { $count } integration đã đến hạn nhưng chưa có cái nào được thực hiện: có vẻ operator không chạy. Hãy kiểm tra operator có đang chạy và là leader không, và --namespace hay --watch-label-selector có loại chúng ra không
none-found = không có integration nào phù hợp trong { $where }
where-namespace = namespace { $namespace }
where-everywhere = tất cả namespace

column-namespace = NAMESPACE
column-name = TÊN
column-team = TEAM
column-status = TRẠNG THÁI
column-hours = GIỜ CÒN LẠI
column-expires = HẾT HẠN
column-error = LỖI GẦN NHẤT
column-todo = CẦN LÀM GÌ
status-title = Cập nhật mỗi { $seconds } giây và khi có thay đổi; Ctrl-C để dừng. { $time }

error-usage = { $error }; xem kubectl tiktokshop --help
error-no-such = không có integration { $name } trong namespace { $namespace }
error-no-such-near = không có integration { $name } trong namespace { $namespace }; có phải bạn muốn { $near }?
error-forbidden = bạn không có quyền { $verb } { $resource } trong { $where }: hãy xin quyền đó (một Role có verb { $verb } trên { $resource }.{ $group })
error-unauthorized = API server không nhận ra bạn: hãy đăng nhập lại, hoặc sửa user trong kubeconfig
error-not-installed = API server không phục vụ TikTokShopIntegration: hãy cài CRD (tiktok-shop-operator crd | kubectl apply --server-side -f -), hoặc chọn cluster khác bằng --context
error-unreachable = không kết nối được tới cluster { $server }: { $error }
error-no-kubeconfig = không có kubeconfig: hãy chỉ ra bằng --kubeconfig hoặc KUBECONFIG
error-kubeconfig = không dùng được kubeconfig: { $error }
error-selector = API server từ chối điều kiện chọn: { $error }
error-server = API server trả về lỗi: { $error }
error-slow = API server không trả lời trong { $seconds } giây

or = { $left } hoặc { $right }

reason-Suspended = Integration đang tạm dừng
reason-AppCredentialsNotFound = Không tìm thấy thông tin xác thực của app
reason-TokenSecretNotFound = Không tìm thấy Secret chứa token
reason-TokensMissing = Secret chứa token bị thiếu token
reason-TokenSecretImmutable = Secret chứa token là immutable nên không lưu được token mới
reason-TokenSecretInUse = Integration khác đang dùng cùng Secret chứa token
reason-TokenSecretForbidden = Operator không có quyền đọc hoặc ghi Secret chứa token
reason-TokenSecretReverted = Có chương trình khác ghi lại token đã dùng vào Secret
reason-RefreshTokenRejected = TikTok Shop từ chối refresh token
reason-RefreshTokenExpired = Refresh token đã hết hạn
reason-AuthorizationCodeRejected = TikTok Shop từ chối mã cấp quyền
reason-AppCredentialsRejected = TikTok Shop từ chối app key hoặc app secret
reason-IpNotAllowed = Địa chỉ của operator không nằm trong danh sách IP cho phép của app
reason-PersistFailed = Chưa lưu được token mới
reason-OutcomeUnknown = Không có câu trả lời cho biết refresh token đã được dùng hay chưa
reason-TokenExpired = Access token đã hết hạn
reason-RefreshFailing = Refresh đang bị lỗi
reason-TokenValid = Access token còn hiệu lực
reason-Refreshed = Đã refresh
reason-NotAttempted = Chưa refresh lần nào
reason-RateLimited = TikTok Shop báo có quá nhiều yêu cầu
reason-Timeout = TikTok Shop không trả lời kịp thời
reason-NetworkError = Không kết nối được tới TikTok Shop
reason-ApiError = TikTok Shop trả về lỗi
reason-InvalidResponse = Không hiểu được câu trả lời của TikTok Shop
reason-unknown = { $reason }
with-detail = { $text } ({ $detail })

todo-Suspended = -
todo-AppCredentialsNotFound = tạo Secret của app, hoặc sửa spec.appCredentialsSecretRef
todo-TokenSecretNotFound = tạo Secret chứa token, hoặc sửa spec.tokenSecretRef
todo-TokensMissing = đưa cả hai token vào Secret
todo-TokenSecretImmutable = tạo lại Secret không có immutable: true
todo-TokenSecretInUse = cho mỗi integration một Secret riêng
todo-TokenSecretForbidden = cấp cho operator quyền get và patch Secret
todo-TokenSecretReverted = không để chương trình khác ghi Secret, rồi đưa token dùng được vào
todo-RefreshTokenRejected = nhờ người bán cấp quyền lại cho app
todo-RefreshTokenExpired = nhờ người bán cấp quyền lại cho app
todo-AuthorizationCodeRejected = nhờ người bán cấp quyền lại cho app
todo-AppCredentialsRejected = sửa Secret của app
todo-IpNotAllowed = thêm địa chỉ đó trong Partner Center
todo-PersistFailed = không dừng operator; khắc phục điều mà lỗi nêu ra
todo-OutcomeUnknown = chờ: sẽ được thử thêm một lần
todo-TokenExpired = kiểm tra operator: có đang chạy và là leader không?
todo-RefreshFailing = chờ: sẽ được thử lại
todo-TokenValid = -
todo-Refreshed = -
todo-NotAttempted = -
todo-RateLimited = chờ: sẽ được thử lại
todo-Timeout = kiểm tra mạng giữa operator và TikTok Shop
todo-NetworkError = kiểm tra mạng giữa operator và TikTok Shop
todo-ApiError = đọc lỗi; sẽ được thử lại
todo-InvalidResponse = kiểm tra --token-endpoint của operator
todo-unknown = kubectl describe ttsi { $name }
todo-overdue = kiểm tra operator có chạy không
