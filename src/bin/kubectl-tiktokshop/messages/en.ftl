# English, the language of reference. A message that is added here is added to the others too; a test holds them together.

refresh-title = Refreshing TikTok Shop tokens...
refresh-title-dry-run = Refreshing TikTok Shop tokens (dry run: nothing is changed)...
found = Found { $count } integration(s)
results = Results:
integration = { $name }
integration-of-team = { $name } (team { $team })

result-refreshed = refreshed - expires { $expires }
result-refreshed-unknown = refreshed - its expiry is not known
result-skipped = skipped - { $why }
result-failed = failed - { $why }
result-timeout = timed out - { $why }
result-would-refresh = would be refreshed - expires { $expires }
result-would-refresh-unknown = would be refreshed - its expiry is not known

why-hours = { $hours } hours until expiry
why-not-due = not due before { $time }
why-suspended = suspended: set spec.suspend to false to have it refreshed
why-not-taken-up = asked { $seconds } s ago and nothing was tried: the operator does not seem to run
why-still-under-way = no result within { $timeout }: look again with kubectl tiktokshop status
why-interrupted = still under way
why-not-asked = not asked for, as the waiting was stopped
why-deleted = it was deleted meanwhile
why-conflict = it was changed again and again while it was judged: try again
why-request = the request could not be written: { $error }

summary = Summary:
summary-refreshed = Refreshed: { $count }
summary-skipped = Skipped: { $count }
summary-failed = Failed: { $count }
summary-timeout = Timed out: { $count }
summary-would-refresh = Would be refreshed: { $count }

progress = { $done } of { $total } done, { $rate } per second, { $left } left
progress-start = { $done } of { $total } done

interrupted = stopped waiting; { $count } integration(s) still under way: { $names }. The operator goes on with them: kubectl tiktokshop status shows how
interrupted-idle = stopped
and-more = { $names } and { $count } more
no-operator = { $count } integration(s) are due and none was tried: the operator does not seem to run. See that it does, that it leads, and that its --namespace and --watch-label-selector do not leave them out
none-found = no integration in { $where } fits
where-namespace = namespace { $namespace }
where-everywhere = any namespace

column-namespace = NAMESPACE
column-name = NAME
column-team = TEAM
column-status = STATUS
column-hours = HOURS
column-expires = EXPIRES
column-error = LAST ERROR
column-todo = WHAT TO DO
status-title = Every { $seconds } s and at each change; Ctrl-C ends it. { $time }

error-usage = { $error }; see kubectl tiktokshop --help
error-no-such = there is no integration { $name } in namespace { $namespace }
error-no-such-near = there is no integration { $name } in namespace { $namespace }; did you mean { $near }?
error-forbidden = you may not { $verb } { $resource } in { $where }: ask for that right (a Role with the verb { $verb } on { $resource }.{ $group })
error-unauthorized = the API server does not know you: log in anew, or correct the user in your kubeconfig
error-not-installed = the API server does not serve TikTokShopIntegration: install the CRD (tiktok-shop-operator crd | kubectl apply --server-side -f -), or choose another cluster with --context
error-unreachable = the cluster at { $server } can't be reached: { $error }
error-no-kubeconfig = there is no kubeconfig: name one with --kubeconfig or KUBECONFIG
error-kubeconfig = the kubeconfig can't be used: { $error }
error-selector = the API server refuses the selection: { $error }
error-server = the API server answered with an error: { $error }
error-slow = the API server did not answer within { $seconds } s

or = { $left } or { $right }

reason-Suspended = it is suspended
reason-AppCredentialsNotFound = the app credentials were not found
reason-TokenSecretNotFound = the token Secret was not found
reason-TokensMissing = tokens are missing in the token Secret
reason-TokenSecretImmutable = the token Secret is immutable, so no new tokens can be stored
reason-TokenSecretInUse = another integration uses the same token Secret
reason-TokenSecretForbidden = the operator may not read or write the token Secret
reason-TokenSecretReverted = something wrote spent tokens back into the token Secret
reason-RefreshTokenRejected = TikTok Shop refused the refresh token
reason-RefreshTokenExpired = the refresh token has expired
reason-AuthorizationCodeRejected = TikTok Shop refused the authorization code
reason-AppCredentialsRejected = TikTok Shop refused the app key or the app secret
reason-IpNotAllowed = the operator's address is not in the app's IP allow list
reason-PersistFailed = the new tokens can't be stored yet
reason-OutcomeUnknown = no answer tells whether the refresh token was spent
reason-TokenExpired = the access token has expired
reason-RefreshFailing = refreshes fail
reason-TokenValid = the access token is valid
reason-Refreshed = refreshed
reason-NotAttempted = no refresh was tried yet
reason-RateLimited = TikTok Shop answers that there are too many requests
reason-Timeout = TikTok Shop did not answer in time
reason-NetworkError = TikTok Shop can't be reached
reason-ApiError = TikTok Shop answered with an error
reason-InvalidResponse = TikTok Shop's answer can't be understood
reason-unknown = { $reason }
with-detail = { $text } ({ $detail })

todo-Suspended = -
todo-AppCredentialsNotFound = create the app's Secret, or correct spec.appCredentialsSecretRef
todo-TokenSecretNotFound = create the token Secret, or correct spec.tokenSecretRef
todo-TokensMissing = put both tokens into the Secret
todo-TokenSecretImmutable = create the Secret anew without immutable: true
todo-TokenSecretInUse = give each integration a Secret of its own
todo-TokenSecretForbidden = allow the operator get and patch of Secrets
todo-TokenSecretReverted = have nothing else write the Secret, then put working tokens there
todo-RefreshTokenRejected = have the seller authorize the app again
todo-RefreshTokenExpired = have the seller authorize the app again
todo-AuthorizationCodeRejected = have the seller authorize the app again
todo-AppCredentialsRejected = correct the app's Secret
todo-IpNotAllowed = add the address in Partner Center
todo-PersistFailed = do not stop the operator; mend what the error names
todo-OutcomeUnknown = wait: it is tried once more
todo-TokenExpired = look at the operator: does it run and lead?
todo-RefreshFailing = wait: it is tried again
todo-TokenValid = -
todo-Refreshed = -
todo-NotAttempted = -
todo-RateLimited = wait: it is tried again
todo-Timeout = check the network between operator and TikTok Shop
todo-NetworkError = check the network between operator and TikTok Shop
todo-ApiError = read the error; it is tried again
todo-InvalidResponse = check the operator's --token-endpoint
todo-unknown = kubectl describe ttsi { $name }
todo-overdue = see that the operator runs
