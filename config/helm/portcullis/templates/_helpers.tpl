{{- define "portcullis.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "portcullis.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "portcullis.labels" -}}
{{ include "portcullis.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "portcullis.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else }}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "portcullis.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "portcullis.name" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{- /* Replicas that do not share their state would let through on one what was revoked on another. */ -}}
{{- define "portcullis.shared" -}}
{{- if and (gt (int .Values.replicas) 1) (not .Values.existingConfigMap) (not (regexMatch "(?m)^\\s*store\\s*=\\s*[\"']redis[\"']" .Values.config)) }}
{{- fail "replicas is above 1, and config has no [state] with store = \"redis\": an event sent to one replica would not apply on the others. Set state.store to \"redis\", or replicas to 1" }}
{{- end }}
{{- end }}
