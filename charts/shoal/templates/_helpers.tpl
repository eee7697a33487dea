{{- define "shoal.name" -}}
{{- if contains "shoal" .Release.Name -}}{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else -}}{{ printf "%s-shoal" .Release.Name | trunc 50 | trimSuffix "-" }}
{{- end -}}
{{- end }}

{{- /* Cluster-scoped names carry the namespace: two releases of one name may live in two namespaces. */ -}}
{{- define "shoal.clusterName" -}}
{{ .Release.Namespace }}:{{ include "shoal.name" . }}
{{- end }}

{{- define "shoal.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "shoal.name" .) }}
{{- end }}

{{- define "shoal.selector" -}}
app.kubernetes.io/name: shoal
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "shoal.labels" -}}
{{ include "shoal.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- /* What the operator does to the objects of one namespace; each rule with its reason. */ -}}
{{- define "shoal.rules" -}}
# The objects it serves. It never writes their spec.
- apiGroups: [inference.shoal.dev]
  resources: [modeldeployments]
  verbs: [list, watch]
# Plan, groups, revisions and conditions are kept in status.
- apiGroups: [inference.shoal.dev]
  resources: [modeldeployments/status]
  verbs: [patch]
# Workers are bare pods: created once under a name of their own, never changed, deleted with their group.
# get: after 409 AlreadyExists it looks whether the pod of that name is its own, and before a group forms again whether one
# that lost the label by which it is watched still holds its devices.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create, delete]
# The client Service and the headless Service of shard names: created, and patched when somebody changed them.
# get: what to patch; and a Service of that name which is somebody else's is left alone. They go with their owner.
# delete: only to make the client Service anew when serving.headless changes, since a Service's address never does.
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch, delete]
# A PodDisruptionBudget while a model has two groups or more, patched as they change; deleted when it has fewer.
# get: what to patch; and a budget of that name which is somebody else's is left alone.
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
# One Secret a revision: the key pair with which its shards prove themselves to one another. Made, and never read, changed
# or deleted by the operator: they go with their owner.
- apiGroups: [""]
  resources: [secrets]
  verbs: [create]
{{- if .Values.networkPolicy.enabled }}
# One NetworkPolicy a model, patched when somebody changed it: only its own pods reach the shard port.
# get: what to patch; and one of that name which is somebody else's is left alone. They go with their owner, so no delete.
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch]
{{- else }}
# networkPolicy.enabled is false: those that were made while it was true are removed.
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [list, watch, delete]
{{- end }}
# What happened, for `kubectl describe`; repeated events are patched into series.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{- define "shoal.subjects" -}}
- kind: ServiceAccount
  name: {{ include "shoal.serviceAccount" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}
